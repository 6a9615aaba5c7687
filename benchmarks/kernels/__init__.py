"""Triton kernels. Each file says in its docstring what it computes, in what precision, with what memory and limits."""
