"""Small readable models, tasks, training and measurements, in torch; and the door for a user's own checkpoint."""
