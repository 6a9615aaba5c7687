"""Which files a module's text depends on."""

from empirical.sources import modules_behind


def write(root, **texts):
    for name, text in texts.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def test_imports_are_followed_through_other_modules_and_in_circles(tmp_path):
    write(
        tmp_path, empirical__a="from theory import b", theory__b="def late():\n    import empirical.c",
        empirical__c="from empirical.a import x", empirical__d="",
    )  # fmt: skip
    found = modules_behind(tmp_path, tmp_path / "empirical/a.py")
    assert found == {tmp_path / name for name in ("empirical/a.py", "theory/b.py", "empirical/c.py")}


def test_packages_of_others_beside_an_installed_copy_are_not_followed(tmp_path):
    write(tmp_path, empirical__a="import torch, theory.b", theory__b="", torch__nn="")
    (tmp_path / "torch" / "__init__.py").write_text("from torch import nn", "utf-8")
    assert modules_behind(tmp_path, tmp_path / "empirical/a.py") == {
        tmp_path / "empirical/a.py", tmp_path / "theory/b.py"
    }  # fmt: skip
