"""What surrounds the relay exists once, in ``sim``: no test and no benchmark has a table or client of its own."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from botocore import xform_name
from botocore.session import get_session

ROOT = Path(__file__).parents[3]
# Methods by which a stand-in is known if it has all of them. A client of AWS is known by each of its calls.
KINDS = {
    "pacing table": {"advance", "swap"},
    "Klaviyo": {"open", "post"},
    "clock": {"sleep"},
    "paged client": {"get_paginator"},  # so that what is asked for in pages has the name of its call
    "paginator": {"paginate"},
}
REAL = {"Klaviyo": {"Connection"}}  # of the relay's own, which tests make fail
UNCOMPARED = {"clock", "paged client", "paginator"}  # no services; pages are compared with each client that has some
VARIABLES = {"EVENTS_QUEUE_URL", "REQUESTS_PER_MINUTE", "KLAVIYO_SECRET", "SOURCES_SECRET"}
OBJECTS = {"SimpleNamespace", "type"}  # what makes an object or a class out of names
MOCKS = {"Mock", "MagicMock", "NonCallableMock", "AsyncMock", "create_autospec"}  # each answers any call


class Double(NamedTuple):
    """A stand-in: its line, its kind and the calls by which that is known; of a class its name and its bases' names."""

    line: int
    kind: str
    calls: frozenset[str]
    name: str = ""
    bases: frozenset[str] = frozenset()


@cache
def calls() -> Mapping[str, tuple[str, set[str]]]:
    """Each call of the clients that the project makes: the client's kind, and what the call cannot do without."""
    code = [path.read_text("utf-8") for folder in ("src", "tools", "local") for path in (ROOT / folder).rglob("*.py")]
    services = {service for text in code for service in re.findall(r'\bclient\(\s*"(\w+)"', text)}
    session = get_session()
    known = {}
    for service in services:
        model = session.get_service_model(service)
        for name in model.operation_names:
            asked = model.operation_model(name).input_shape
            known[xform_name(name)] = f"{service} client", set(asked.required_members if asked else ())
    return known


def found(source: str) -> Iterator[Double]:
    """Each stand-in that ``source`` defines: a class, an object, a method that is set on another's, an environment."""
    for node in ast.walk(ast.parse(source)):
        name, bases = "", frozenset[str]()
        given: dict[str, ast.FunctionDef | None] = {}
        match node:
            case ast.ClassDef():
                name, bases = node.name, frozenset(map(last, node.bases))
                given = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
                given |= dict.fromkeys(one for part in node.body for one in assigned(part, ast.Name))
            case ast.Assign() | ast.AnnAssign():
                given = dict.fromkeys(assigned(node, ast.Attribute))
            case ast.Call() if last(node.func) in MOCKS:
                yield Double(node.lineno, "mock", frozenset())
            case ast.Call() if last(node.func) in OBJECTS:
                given = dict.fromkeys(keyword.arg or "" for keyword in node.keywords)
                given |= dict.fromkeys(key for part in ast.walk(node) for key in keys(part))
            case ast.Call() if re.search(r"setattr$|\bpatch\b", ast.unparse(node.func)):
                given = dict.fromkeys(text.split(".")[-1] for text in texts(node.args))
            case ast.Dict() if len(keys(node) & VARIABLES) > 1:
                yield Double(node.lineno, "environment", frozenset())
        for kind, known_by in kinds(given).items():
            yield Double(getattr(node, "lineno", 0), kind, frozenset(known_by), name, bases)


def kinds(given: Mapping[str, ast.FunctionDef | None]) -> Mapping[str, set[str]]:
    """What an object stands for that has these methods, and by which; ``None`` if their arguments are not known."""
    known = defaultdict(set, {kind: methods for kind, methods in KINDS.items() if methods <= given.keys()})
    for name, method in given.items():
        client, required = calls().get(name, ("", set()))
        if client and takes(method, required):
            known[client].add(name)
    return known


def takes(method: ast.FunctionDef | None, required: set[str]) -> bool:
    """Whether ``method`` can be called with these; ``invoke`` of a function in memory cannot."""
    if method is None or method.args.kwarg:
        return True
    return required <= {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}


def assigned(node: ast.AST, form: type[ast.expr]) -> set[str]:
    """The names, or those of the attributes, to which ``node`` assigns, or whose type it gives."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {last(target) for target in targets if isinstance(target, form)}


def texts(nodes: Sequence[ast.expr | None]) -> set[str]:
    """The texts among ``nodes``."""
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def keys(node: ast.AST) -> set[str]:
    """The texts that are keys of ``node``, if that is a dict."""
    return texts(node.keys) if isinstance(node, ast.Dict) else set()


def last(node: ast.expr) -> str:
    """The name at the end of ``node``: what a dotted name names."""
    return ast.unparse(node).split(".")[-1]


@cache
def originals() -> Mapping[str, Sequence[tuple[str, Double]]]:
    """The classes of ``sim``, each after its module, by kind."""
    known = defaultdict(list)
    for path in sorted((ROOT / "sim").glob("*.py")):
        for double in found(path.read_text("utf-8")):
            known[double.kind].append((path.stem, double))
    return known


def copies(source: str) -> list[Double]:
    """The stand-ins in ``source`` that are not made of the one in ``sim``."""
    own = {kind: {double.name for _, double in doubles} for kind, doubles in originals().items()}
    return [
        double
        for double in found(source)
        if not double.bases & (own.get(double.kind, set()) | REAL.get(double.kind, set()))
    ]


@pytest.mark.parametrize("folder", ["tests", "bench", "fuzz"])
def test_every_double_is_in_sim(folder: str) -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{double.line}: a {double.kind} of its own; pass a hook to the one in sim/"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for double in copies(path.read_text("utf-8"))
    ]
    assert lines == []


def test_sim_has_each_double_once() -> None:
    assert originals().keys() > KINDS.keys()
    assert [kind for kind, doubles in originals().items() if len(doubles) > 1] == []


def test_every_double_is_compared_with_the_real_one() -> None:
    """A conformance test imports it and makes each of its calls."""
    written = [path.read_text("utf-8") for path in (ROOT / "tests/conformance").glob("test_*.py")]
    missing = [
        f"sim.{module}.{double.name}.{call}"
        for kind, doubles in originals().items()
        for module, double in doubles
        for call in sorted(double.calls)
        if kind not in UNCOMPARED
        and not any(
            re.search(rf"^from sim\.{module} import .*\b{double.name}\b", text, re.MULTILINE)
            and re.search(rf"\b{call}\b", text)
            for text in written
        )
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("class Own:\n def advance(self): ...\n def swap(self): ...", "pacing table"),
        ("class Own:\n def open(self): ...\n def post(self): ...", "Klaviyo"),
        ("class Own:\n def sleep(self): ...", "clock"),
        ("class Own:\n def get_paginator(self, _): ...", "paged client"),
        ("SimpleNamespace(paginate=pages)", "paginator"),
        (f"OWN = {dict.fromkeys(sorted(VARIABLES), '')}", "environment"),
        ("class Own:\n def receive_message(self, *, QueueUrl): ...", "sqs client"),
        ("class Own(Secrets):\n def receive_message(self, **_): ...", "sqs client"),
        ("class Own:\n get_queue_attributes = staticmethod(attributes)", "sqs client"),
        ("class Own:\n def __init__(self):\n  self.delete_message = refuse", "sqs client"),
        ("world.sqs.delete_message_batch = refuse", "sqs client"),
        ("types.SimpleNamespace(get_item=item)", "dynamodb client"),
        ("type('Own', (), {'put_secret_value': put})", "secretsmanager client"),
        ("SimpleNamespace(**{'filter_log_events': lines})", "logs client"),
        ("SimpleNamespace(**{'describe_stacks': stacks})", "cloudformation client"),
        ("@dataclass\nclass Own:\n get_item: Callable[..., Any]", "dynamodb client"),
        ("class Own:\n def __init__(self):\n  self.get_item: Any = item", "dynamodb client"),
        ("client = Mock()\nclient.get_item.return_value = {}", "mock"),
        ("mock.create_autospec(Sqs)", "mock"),
        ("monkeypatch.setattr(client, 'invoke', answer)", "lambda client"),
        ("setattr(client, 'describe_alarms', none)", "cloudwatch client"),
        ("mock.patch.object(client, 'list_subscriptions_by_topic')", "sns client"),
        ("mock.patch('tools.storage.put_object')", "s3 client"),
        ("class Own:\n def get_apis(self): ...", "apigatewayv2 client"),
    ],
)
def test_a_double_is_noticed_by_any_call_and_in_any_form(source: str, kind: str) -> None:
    assert [double.kind for double in copies(source)] == [kind]


@pytest.mark.parametrize(
    "source",
    [
        "class Slow(Sqs):\n def receive_message(self, **asked): ...",
        "class Broken(klaviyo.Connection):\n def open(self): ...\n def post(self): ...",
        "class Function:\n def invoke(self, records): ...",  # Lambda's needs a FunctionName
        "client.send_message(QueueUrl=url, MessageBody='{}')",
        "query = {}",
    ],
)
def test_what_is_made_of_a_double_or_calls_one_is_none(source: str) -> None:
    assert copies(source) == []


def test_sim_imports_the_handler_only() -> None:
    """So that whatever is tested or measured with it can be changed without it."""
    for path in sorted((ROOT / "sim").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            tops = {name.split(".")[0] for name in names}
            assert tops.isdisjoint({"local", "tests", "bench", "tools"}), f"{path.name} imports {names}"
