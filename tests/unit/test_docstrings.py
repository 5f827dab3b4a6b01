"""The public names explain themselves: what they do, every parameter, what comes back."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import dmf
import dmf.nonlinear

HOMES = (dmf, dmf.solvers, dmf.completion, dmf.recovery, dmf.theory, dmf.nonlinear)
PUBLIC = {
    name: value for module in HOMES for name in module.__all__ if not inspect.ismodule(value := getattr(module, name))
}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
METHODS = {
    f"{name}.{attribute}": member
    for name, cls in CLASSES.items()
    for attribute in vars(cls)
    if not attribute.startswith("_") and callable(member := getattr(cls, attribute))
}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
MODULES = [*HOMES, dmf.models, dmf.observations, dmf.nonlinear.layers]
UNDERLINE = re.compile(r"^-{3,}$")


def sections(docstring):
    """Title -> lines of each numpydoc section."""
    lines, found, title = docstring.splitlines(), {}, None
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if UNDERLINE.match(below):
            title = line
            found[title] = []
        elif title is not None and not UNDERLINE.match(line):
            found[title].append(line)
    return found


def documented(docstring, *titles):
    """Name -> description of the parameters in the sections of these titles."""
    found, names = {}, []
    for title in titles:
        for line in sections(docstring).get(title, []):
            if line and not line.startswith(" "):
                names, _, kind = line.partition(" :")
                names = [name.strip("* ") for name in names.split(",")]
                found.update(dict.fromkeys(names, kind.strip()))
            elif line:
                found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def constructor_of(cls):
    """The class in the family whose constructor `cls` has, None for those of Python itself."""
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    return owner if owner.__module__.startswith("dmf") else None


def test_a_name_means_one_thing_and_hides_no_module():
    for name, value in PUBLIC.items():
        homes = [home for home in HOMES if name in home.__all__]
        assert all(getattr(home, name) is value for home in homes)
        assert not any((Path(home.__file__).parent / f"{name}.py").exists() for home in homes)


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_every_public_name_and_method_has_a_sentence(name):
    docstring = inspect.getdoc({**PUBLIC, **METHODS}[name])
    assert docstring
    first = docstring.split("\n\n")[0]
    assert len(first.split()) >= 2
    assert first.rstrip().endswith((".", ":", "``")), "the first paragraph is a sentence"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_document_every_parameter(name):
    found = documented(inspect.getdoc(FUNCTIONS[name]), "Parameters")
    assert sorted(found) == sorted(parameters(FUNCTIONS[name]))
    undescribed = [parameter for parameter, text in found.items() if not text]
    assert undescribed == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_document_what_they_return_and_raise(name):
    found = sections(inspect.getdoc(FUNCTIONS[name]))
    assert any(found.get("Returns", []))
    if "raise " in inspect.getsource(FUNCTIONS[name]):
        assert any(found.get("Raises", []))


@pytest.mark.parametrize("name", CLASSES)
def test_classes_document_every_parameter_of_their_constructor(name):
    """Fields of a dataclass are attributes as well, and may be documented as such."""
    owner = constructor_of(CLASSES[name])
    if owner is None:
        assert issubclass(CLASSES[name], Exception) or inspect.isabstract(CLASSES[name])
        return
    titles = ("Parameters", "Attributes") if dataclasses.is_dataclass(owner) else ("Parameters",)
    found = documented(inspect.getdoc(owner), *titles)
    missing = [parameter for parameter in parameters(owner.__init__) if not found.get(parameter)]
    assert missing == []


@pytest.mark.parametrize("name", METHODS)
def test_methods_with_a_parameter_section_document_every_parameter(name):
    found = documented(inspect.getdoc(METHODS[name]) or "", "Parameters")
    if found:
        assert sorted(found) == sorted(parameters(METHODS[name]))


def resolves(value, path):
    for attribute in path.split("."):
        value = getattr(value, attribute, None)
    return value is not None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names_in_backticks_exist(name):
    """`like_this` is a parameter or a name in the package."""
    words = set(re.findall(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", inspect.getdoc(FUNCTIONS[name])))
    for word in words - set(parameters(FUNCTIONS[name])):
        assert any(resolves(module, word.removeprefix("dmf.")) for module in MODULES), word
