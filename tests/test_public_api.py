"""What is public: the names in `__all__`, the pages in docs/api, and the docstrings say the same."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import keras
import pytest

import keras_vit_edu

pytestmark = pytest.mark.any_backend
PAGES = Path(__file__).parents[1] / "docs" / "api"

# Keras calls and documents these methods.
OF_KERAS = {
    "build", "call", "compute_mask", "compute_output_shape", "compute_output_spec", "from_config", "get_config",
    "load_own_variables", "quantize", "save_own_variables",
}  # fmt: skip

# Where a docstring may lack an example, and why.
WITHOUT_EXAMPLE = {
    **dict.fromkeys(
        ["parity.check_saving", "parity.compare_results", "parity.run_suite", "parity.testing.assert_saves_and_loads",
         "parity.testing.assert_same_on_every_backend"],
        "starts processes or reads what they wrote; docs/api/parity.md has examples",
    ),
    **dict.fromkeys(
        ["LoadedClassifier", "datasets.DigitMeasures", "datasets.SameDifferent", "explain.Explanation", "explain.Grid",
         "explain.Inside", "explain.faithfulness.Curves", "parity.Report", "transfer.HubPreset",
         "transfer.Predictions"],
        "a result: the example is at the function that returns it",
    ),
}  # fmt: skip
# Parameters that may be anything, and why.
OF_ANY_TYPE = {
    **dict.fromkeys(["initializers.for_child", "transfer.Preprocessing.from_converter"], "an object of Keras"),
    **dict.fromkeys(
        ["datasets.Augmentation.from_json", "training.Recipe.from_json", "transfer.FineTuning.from_json",
         "transfer.Preprocessing.from_json"],
        "read from a file: it is checked",
    ),
}  # fmt: skip


def public(module, prefix=""):
    """What a module makes public, by its name below `keras_vit_edu`: its `__all__`, and that of the modules in it."""
    for name in module.__all__:
        value = getattr(module, name)
        yield f"{prefix}{name}", value
        # The oracle is mathematics to be read as it is: its page shows it whole.
        if inspect.ismodule(value) and name != "oracle":
            yield from public(value, f"{prefix}{name}.")


def methods(cls):
    """The public methods of a class that this package defines, and those that it inherits from this package."""
    for ancestor in reversed(cls.__mro__):
        if ancestor.__module__.startswith("keras_vit_edu"):
            for name, value in vars(ancestor).items():
                function = getattr(value, "__func__", value)  # of a class method
                if inspect.isfunction(function) and not name.startswith("_") and name not in OF_KERAS:
                    yield name, function


PUBLIC = dict(public(keras_vit_edu))
MODULES = {name: value for name, value in PUBLIC.items() if inspect.ismodule(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) and not issubclass(value, Exception)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
METHODS = {f"{name}.{method}": value for name, cls in CLASSES.items() for method, value in methods(cls)}
PROPERTIES = {
    f"{name}.{member}": value.fget
    for name, cls in CLASSES.items()
    for member, value in vars(cls).items()
    if isinstance(value, property) and not member.startswith("_")
}
EXCEPTIONS = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) and name not in CLASSES}
CONSTANTS = PUBLIC.keys() - {*MODULES, *CLASSES, *FUNCTIONS, *EXCEPTIONS}
ALIASES = {name for name, cls in CLASSES.items() if name.rpartition(".")[2] != cls.__name__}
CALLABLE = {**FUNCTIONS, **METHODS}
LAYERS = {name: cls for name, cls in CLASSES.items() if issubclass(cls, keras.layers.Layer)}


# What a docstring says. -----------------------------------------------------------------------------------------------


def sections(value):
    """The parts of a docstring by their titles; what stands before the first title has the title ""."""
    before, *parts = re.split(r"^([A-Z][\w ]*):\n(?=    )", inspect.cleandoc(value.__doc__ or ""), flags=re.MULTILINE)
    return {"": before, **dict(zip(parts[::2], parts[1::2], strict=True))}


def described(value, *titles):
    """The names that sections of a docstring describe."""
    text = "".join(sections(value).get(title, "") for title in titles)
    lines = re.findall(r"^    (\*{0,2}\w+(?:, \w+)*): ", text, flags=re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


def refers(value):
    """Whether a docstring says where to look instead: "As `ViTBackbone.attention_scores`."."""
    return bool(re.match(r"As `", value.__doc__)) or "Arguments" in sections(value)[""]


def parameters(value):
    """The names of the parameters, with the stars of `*args` and `**kwargs`."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(each.kind, "") + each.name for each in inspect.signature(value).parameters.values()]
    return [name for name in names if name not in ("self", "cls") or value in FUNCTIONS.values()]


def nodes(function):
    """The syntax tree of a function, node by node."""
    return ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))


def returns_something(function):
    return inspect.signature(function).return_annotation not in (None, "None")


def raises(function):
    """Whether a function raises an error of its own, or has arguments checked."""
    return any(
        (isinstance(node, ast.Raise) and node.exc is not None)
        or (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_checks")
        for node in nodes(function)
    )


def is_written(function):
    """Whether a function stands in a file: the constructor of a dataclass is generated."""
    return inspect.isfunction(function) and function.__code__.co_filename != "<string>"


def has_own_constructor(cls):
    """Not one that Keras documents."""
    return inspect.isfunction(cls.__init__) and cls.__init__.__module__.startswith("keras_vit_edu")


# The pages. -----------------------------------------------------------------------------------------------------------


def on_pages():
    """The names that pages of docs/api document: a module stands for what it makes public."""
    for page in PAGES.glob("*.md"):
        for path in re.findall(r"^::: keras_vit_edu\.(\S+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            name = re.sub(r"\b(\w+)\.\1$", r"\1", path)  # a function in a file of its name
            yield name
            if name in MODULES:
                yield from (f"{name}.{member}" for member in getattr(MODULES[name], "__all__", ()))


def test_every_public_name_is_on_a_page_and_every_name_on_a_page_is_public():
    assert {name for name in set(on_pages()) - MODULES.keys() if not name.startswith("parity.oracle.")} == (
        PUBLIC.keys() - CONSTANTS - ALIASES - MODULES.keys()
    )


def test_every_constant_and_alias_is_named_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
    assert [name for name in CONSTANTS | ALIASES if f"`{name.rpartition('.')[2]}`" not in text] == []


# The docstrings. Each test lists the names where something is missing. ------------------------------------------------


def test_every_public_name_has_a_summary():
    documented = {**MODULES, **CLASSES, **EXCEPTIONS, **CALLABLE, **PROPERTIES}
    summaries = {name: inspect.cleandoc(value.__doc__ or "").split("\n\n")[0] for name, value in documented.items()}
    assert [name for name, summary in summaries.items() if not summary.rstrip("`").endswith((".", ":"))] == []
    assert [name for name, cls in CLASSES.items() if "__doc__" not in vars(cls)] == []


@pytest.mark.parametrize("kind", [CLASSES, CALLABLE], ids=["classes", "functions"])
def test_the_arguments_are_those_of_the_signature(kind):
    own = {name: value for name, value in kind.items() if kind is CALLABLE or has_own_constructor(value)}
    wrong = {
        name: (parameters(value), described(value, "Args", "Attributes"))
        for name, value in own.items()
        if not refers(value) and described(value, "Args", "Attributes")[: len(parameters(value))] != parameters(value)
    }
    assert wrong == {}


def test_call_arguments_are_those_of_call():
    wrong = {
        name: (parameters(cls.call), described(cls, "Call arguments"))
        for name, cls in LAYERS.items()
        if has_own_constructor(cls)
        and described(cls, "Call arguments") != (["images"] if issubclass(cls, keras.Model) else parameters(cls.call))
    }
    assert wrong == {}


def test_what_is_returned_is_described():
    """But where the summary of a function without parameters says it."""
    found = {name: f for name, f in CALLABLE.items() if parameters(f) and returns_something(f) and not refers(f)}
    found |= {name: cls for name, cls in LAYERS.items() if has_own_constructor(cls)}
    assert [name for name, value in found.items() if not {"Returns", "Yields"} & sections(value).keys()] == []


def test_errors_are_described():
    found = {name: function for name, function in CALLABLE.items() if raises(function) and not refers(function)}
    found |= {
        name: cls
        for name, cls in CLASSES.items()
        for method in ("__init__", "__post_init__", "__call__", "call")
        if is_written(vars(cls).get(method)) and raises(vars(cls)[method])
    }
    assert [name for name, value in found.items() if "Raises" not in sections(value)] == []


def test_classes_and_functions_have_examples_that_doctest_runs():
    without = {
        name for name, value in {**CLASSES, **FUNCTIONS}.items() if ">>> " not in sections(value).get("Examples", "")
    }
    of_a_module = {name for name in CLASSES if name.startswith("initializers.")}  # the module has one for all
    assert without - of_a_module == WITHOUT_EXAMPLE.keys()


def test_parameters_are_not_typed_as_any():
    constructors = {name: cls.__init__ for name, cls in CLASSES.items() if has_own_constructor(cls)}
    written = {name: function for name, function in {**CALLABLE, **constructors}.items() if is_written(function)}
    annotated = {
        f"{name}: {argument.arg}"
        for name, function in written.items()
        for argument in next(node for node in nodes(function) if isinstance(node, ast.arguments)).args
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any"
    }
    assert [name for name in annotated if name.partition(":")[0] not in OF_ANY_TYPE] == []
