"""The public names explain themselves: what they do, every parameter, what comes back."""

import dataclasses
import inspect
import re
from enum import Enum
from pathlib import Path

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


def resolves(value, path):
    for attribute in path.split("."):
        value = getattr(value, attribute, None)
    return value is not None


def has_a_sentence(member):
    """The first paragraph is one."""
    first = (inspect.getdoc(member) or "").split("\n\n")[0]
    return len(first.split()) >= 2 and first.rstrip().endswith((".", ":", "``"))


def problems_of_function(function):
    """Every parameter is described, and so are what comes back and what is raised; `like_this` is a name that exists."""
    docstring, names = inspect.getdoc(function) or "", parameters(function)
    found, titles = documented(docstring, "Parameters"), sections(docstring)
    if sorted(found) != sorted(names) or not all(found.values()):
        yield f"describes {sorted(name for name, text in found.items() if text)} of the parameters {sorted(names)}"
    if not any(titles.get("Returns", [])):
        yield "has no section Returns"
    if "raise " in inspect.getsource(function) and not any(titles.get("Raises", [])):
        yield "has no section Raises"
    for word in set(re.findall(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", docstring)) - set(names):
        if not any(resolves(module, word.removeprefix("dmf.")) for module in MODULES):
            yield f"names `{word}`, which is nowhere"


def problems_of_class(cls):
    """Every parameter of the constructor is described; fields of a dataclass are attributes, and may be described as such."""
    owner = constructor_of(cls)
    if owner is None:
        if not (issubclass(cls, (Exception, Enum)) or inspect.isabstract(cls)):
            yield "has no constructor of its own"
        return
    titles = ("Parameters", "Attributes") if dataclasses.is_dataclass(owner) else ("Parameters",)
    found = documented(inspect.getdoc(owner), *titles)
    if missing := [name for name in parameters(owner.__init__) if not found.get(name)]:
        yield f"does not describe {missing}"


def problems_of_method(method):
    """A section of parameters describes them all."""
    found = documented(inspect.getdoc(method) or "", "Parameters")
    if found and sorted(found) != sorted(parameters(method)):
        yield f"describes {sorted(found)} of the parameters {sorted(parameters(method))}"


def test_public_names_explain_themselves():
    problems = [f"{name} has no first sentence" for name, it in {**PUBLIC, **METHODS}.items() if not has_a_sentence(it)]
    for members, check in (
        (FUNCTIONS, problems_of_function),
        (CLASSES, problems_of_class),
        (METHODS, problems_of_method),
    ):
        problems += [f"{name} {problem}" for name, member in members.items() for problem in check(member)]
    assert not problems, "\n".join(problems)
