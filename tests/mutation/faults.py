"""The faults: what is changed in one place of a module at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Change = tuple[str, ast.AST | None]  # the operator's name, and the new node; None: left out

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
# Of SQL and of everything: one word for its opposite.
_WORDS = {
    "and_": "or_",
    "or_": "and_",
    "is_": "is_not",
    "is_not": "is_",
    "in_": "not_in",
    "not_in": "in_",
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "issubset": "issuperset",
    "outerjoin_from": "join_from",
    "outerjoin": "join",
    "union_all": "union",
    "isdisjoint": "issubset",
}
# A link of a chain that is left out: `select(…).where(…)` → `select(…)`.
_LINKS = frozenset(
    {
        *("where", "order_by", "group_by", "distinct", "limit", "desc", "with_for_update"),
        *("on_conflict_do_nothing", "on_conflict_do_update"),
    }
)
# Of these a single argument is left out.
_ARGUMENTS = frozenset({"where", "and_", "or_", "order_by", "group_by"})
# For people alone, or for tests alone.
_NOT_MUTATED = ("log.", "deps.crash.here", "self._deps.crash.here")


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of a module.

    Attributes:
        number: its place among the module's faults, from 1.
        first_line: of the statement it stands in; `last_line` likewise.
        at_import: it stands in no function: every test meets it.
    """

    number: int
    operator: str
    line: int
    first_line: int
    last_line: int
    at_import: bool
    before: str
    after: str

    def __str__(self) -> str:
        """For a report."""
        return f"{self.line}: {self.operator}: {self.before}  →  {self.after}"


def faults_of(source: str) -> list[Fault]:
    """All faults of a module, in the order of its text."""
    found: list[Fault] = []
    for place in _places(ast.parse(source)):
        for operator, node in _changes(place.node):
            found.append(
                Fault(
                    number=len(found) + 1,
                    operator=operator,
                    line=getattr(place.node, "lineno", place.first_line),
                    first_line=place.first_line,
                    last_line=place.last_line,
                    at_import=place.at_import,
                    before=_short(place.node),
                    after=_short(node) if node is not None else "left out",
                )
            )
    return found


def with_fault(source: str, number: int) -> ast.Module:
    """The module with one of its faults."""
    tree = ast.parse(source)
    for place in _places(tree):
        for _, node in _changes(place.node):
            number -= 1
            if number == 0:
                new = node if node is not None else ast.Pass()
                if hasattr(place.node, "lineno"):
                    ast.copy_location(new, place.node)
                place.replace(new)
                return ast.fix_missing_locations(tree)
    raise LookupError(number)


@dataclass(frozen=True, slots=True)
class _Place:
    node: ast.AST
    replace: Callable[[ast.AST], None]
    first_line: int
    last_line: int
    at_import: bool


def _places(tree: ast.Module) -> Iterator[_Place]:
    """Every node that may be changed."""
    yield from _below(tree, (0, 0), at_import=True)


def _below(parent: ast.AST, lines: tuple[int, int], *, at_import: bool) -> Iterator[_Place]:
    for field, value in ast.iter_fields(parent):
        if field in {"annotation", "returns", "decorator_list", "bases", "type_params"}:
            continue
        for position, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _passed_over(child):
                continue
            within = _lines_of(child) if isinstance(child, ast.stmt) else lines
            # The body of a function runs when it is called; its defaults, at import.
            inner = field == "body" and isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
            early = at_import and not inner
            yield _Place(child, _replacer(parent, field, value, position), *within, early)
            yield from _below(child, within, at_import=early)


def _replacer(
    parent: ast.AST, field: str, value: object, position: int
) -> Callable[[ast.AST], None]:
    def replace(new: ast.AST) -> None:
        if isinstance(value, list):
            value[position] = new
        else:
            setattr(parent, field, new)

    return replace


def _lines_of(statement: ast.stmt) -> tuple[int, int]:
    """Its own lines: of one that holds others, those of its head."""
    last = statement.end_lineno or statement.lineno
    body = getattr(statement, "body", None)
    if body:
        last = max(statement.lineno, body[0].lineno - 1)
    return statement.lineno, last


def _passed_over(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.ClassDef):
        # The words of an enum: the tables' constraints know them.
        return any("Enum" in ast.unparse(base) for base in node.bases)
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return True  # a docstring
    return ast.unparse(node.value).startswith(_NOT_MUTATED)


def _changes(node: ast.AST) -> Iterator[Change]:
    """What may be made of a node."""
    match node:
        case ast.stmt():
            yield from _of_statement(node)
        case ast.Call():
            yield from _of_call(node)
        case ast.Constant():
            yield from _of_constant(node)
        case ast.Dict() | ast.Set() | ast.Tuple():
            yield from _of_display(node)
        case ast.Name(id=word) if isinstance(node.ctx, ast.Load) and word in _WORDS:
            yield "word", _with(node, id=_WORDS[word])
        case ast.Attribute(attr=word) if word in _WORDS:
            yield "word", _with(node, attr=_WORDS[word])
        case ast.expr():
            yield from _of_operator(node)
        case _:
            pass
    yield from _of_conditions(node)


def _of_statement(node: ast.stmt) -> Iterator[Change]:
    match node:
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield "return", _with(node, value=ast.Constant(None))
        case ast.Expr() | ast.Raise() | ast.AugAssign():
            yield "statement", None
        case ast.Continue():
            yield "statement", ast.Break()
        case _:
            pass


def _of_operator(node: ast.expr) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=[op]):
            for other in _COMPARISONS[type(op)]:
                yield "comparison", _with(node, ops=[other()])
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield "arithmetic", _with(node, op=_ARITHMETIC[type(node.op)]())
        case ast.BoolOp():
            yield "and/or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub()):
            yield "sign", copy.deepcopy(node.operand)
        case _:
            pass


def _of_display(node: ast.Dict | ast.Set | ast.Tuple) -> Iterator[Change]:
    match node:
        case ast.Dict(keys=[_, _, *_]):
            for i in range(len(node.keys)):
                keys, values = _without(node.keys, i), _without(node.values, i)
                yield "key", _with(node, keys=keys, values=values)
        case ast.Set(elts=[_, _, *_]) | ast.Tuple(elts=[ast.Attribute(), ast.Attribute(), *_]):
            for i in range(len(node.elts)):
                yield "element", _with(node, elts=_without(node.elts, i))
        case _:
            pass


def _of_constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int | float):
        yield "constant", ast.Constant(value + 1)
        if value == 1:
            yield "constant", ast.Constant(0)
    elif isinstance(value, str) and value and " " not in value:  # else prose
        yield "constant", ast.Constant(f"XX{value}")


def _of_call(node: ast.Call) -> Iterator[Change]:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if isinstance(node.func, ast.Attribute) and name in _LINKS:
        yield "link", copy.deepcopy(node.func.value)
    if name in _ARGUMENTS and len(node.args) > 1:
        for i in range(len(node.args)):
            yield "argument", _with(node, args=_without(node.args, i))
    if name[:1].islower():  # constructors want all of theirs
        for i, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                yield "keyword", _with(node, keywords=_without(node.keywords, i))


def _of_conditions(node: ast.AST) -> Iterator[Change]:
    """What is asked, the other way round, where no other operator turns it round."""
    match node:
        case ast.If() | ast.IfExp() | ast.While():
            if _plain(node.test):
                yield "condition", _with(node, test=_negated(node.test))
        case ast.comprehension(ifs=[_, *_]):
            if _plain(node.ifs[0]):
                yield "condition", _with(node, ifs=[_negated(node.ifs[0]), *node.ifs[1:]])
        case _:
            pass


def _plain(test: ast.expr) -> bool:
    return not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp)


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), copy.deepcopy(test))


def _without(items: list, i: int) -> list:  # type: ignore[type-arg]
    return items[:i] + items[i + 1 :]


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(new, name, copy.deepcopy(value))
    return new


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= 160 else text[:157] + "…"  # noqa: PLR2004
