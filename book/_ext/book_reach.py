"""What a page's outputs depend on: the modules that its cells can reach by imports, and the files these read.

Imports are followed as they stand in the source, also those inside functions and in scripts that cells write.
``LOADERS`` import by a name made at run time: a folder counts for whoever mentions them, but of the
experiments only those that are asked for by a name in quotes, if all are. A data file counts for the code
that names it and for the module that is called like it; for all, if there is none. In doubt all counts.
"""

import ast
import re
from pathlib import Path

import yaml
from IPython.core.inputtransformer2 import TransformerManager

READ = (".json", ".md", ".sql", ".toml", ".yaml", ".safetensors")  # of the package's files, beside its code
LOADERS = {"get_experiment": "experiments", "fetch": "data", "available": "data"}
SCRIPT = re.compile(r"^\s*(?:from|import) (companion\.[\w.]*)", re.MULTILINE)
UNKNOWN = {"import_module", "__import__"}  # imports of a cell that cannot be followed
COMMAND = re.compile(r"companion(?:\s|$)")


def named(node: ast.AST) -> str:
    """The name that a node mentions, of a dotted name the last part, or ``""``."""
    return getattr(node, "id", "") or getattr(node, "attr", "")


class Code:
    """Some code, and what it mentions."""

    def __init__(self, tree: ast.AST) -> None:
        self.nodes = list(ast.walk(tree))
        self.names = set(map(named, self.nodes))
        values = (node.value for node in self.nodes if isinstance(node, ast.Constant))
        self.strings = {value for value in values if isinstance(value, str)}
        self.imports = {name for text in self.strings for name in SCRIPT.findall(text)}
        for node in self.nodes:
            if isinstance(node, ast.ImportFrom | ast.Import):
                start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                self.imports |= {start + alias.name for alias in node.names}
                self.names |= {alias.name for alias in node.names if alias.asname}

    def asked(self, function: str) -> list[ast.expr | None]:
        """The first arguments of all calls of a function, and nothing for each mention that is no call."""
        calls = [n for n in self.nodes if isinstance(n, ast.Call) and n.args and named(n.func) == function]
        others = sum(named(node) == function for node in self.nodes) - len(calls)
        return [call.args[0] for call in calls] + [None] * others


def told(path: Path, text: str) -> bool:
    """Whether code names a data file of the package."""
    if path.parent.name == "recorded":
        return bool(re.search(rf"""["']{path.name.split(".")[0]}""", text))
    return path.name in text or f'with_name("{path.parent.name}")' in text


def shows(code: Code, run: str) -> bool:
    """Whether a page with this code may read a recorded run."""
    if "RECORDED" in code.names or any(run in text for text in code.strings):
        return True
    for name in code.asked("load_run"):
        parts = name.values if isinstance(name, ast.JoinedStr) else [name]
        regex = "".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else "(.+)" for p in parts)
        found = re.fullmatch(regex, run)
        if found and (not isinstance(name, ast.JoinedStr) or code.strings >= set(found.groups())):
            return True
    return False


class Package:
    """The package ``companion``, as its source has it."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "companion"
        self.texts = {path: path.read_text("utf8") for path in self.folder.rglob("*.py")}
        self.data = [path for path in self.folder.rglob("*") if path.suffix in READ]
        dotted = {path: ".".join(path.relative_to(root).with_suffix("").parts) for path in self.texts}
        self.names = {name.removesuffix(".__init__"): path for path, name in dotted.items()}
        self.next = {path: self._next(Code(ast.parse(text)), path) for path, text in self.texts.items()}

    def _next(self, code: Code, own: Path | None = None) -> set[Path]:
        """The modules that code imports itself."""
        names = code.imports | {
            name[: dot.start()] for name in code.imports for dot in re.finditer(r"\.", name)
        }
        homes = [f"companion.{folder}" for loader, folder in LOADERS.items() if loader in code.names]
        asked = [getattr(each, "value", None) for each in code.asked("get_experiment")]
        if asked and None not in asked:
            table = yaml.safe_load((self.folder / "experiments/scales.yaml").read_text("utf8"))
            names |= {f"companion.experiments.{table[name]['module']}" for name in asked if name in table}
            homes.remove("companion.experiments")
        for home in homes:
            if own != self.names.get(home) and (home in names):
                names |= {name for name in self.names if name.startswith(f"{home}.")}
        return {self.names[name] for name in names & self.names.keys()}

    def reached(self, cells: list[str]) -> set[Path]:
        """The files that the outputs of a page depend on."""
        try:
            code = Code(ast.parse("\n".join(map(TransformerManager().transform_cell, cells))))
        except SyntaxError:
            return {*self.texts, *self.data}
        if code.names & UNKNOWN or any(
            map(COMMAND.match, code.strings)
        ):  # or starts a command of the package
            return {*self.texts, *self.data}
        modules: set[Path] = set()
        new = self._next(code)
        while new:
            modules |= new
            new = {path for each in new for path in self.next[each]} - modules
        text = "\n".join([*cells, *(self.texts[path] for path in modules)])
        everything = "\n".join(self.texts.values())
        found = set()
        for path in self.data:
            twin = path.with_suffix(".py")
            if path.parent.name == "recorded":
                may = shows(code, path.name.split(".")[0])
            else:  # in doubt, where nothing says who reads it
                may = twin in modules or not (twin in self.texts or told(path, everything))
            found |= {path} if may or told(path, text) else set()
        return modules | found
