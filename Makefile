# make book | read | test | check | serve | site | sphinx | notebooks | assignments | bench | gpu | lint | links | lock | clean
# Each works on a fresh clone, alone, in any order. Variables:
#   PYTHON=python3.12   the Python to make .venv with (3.11 to 3.14; found if not given)
#   TORCH_INDEX=URL     a package index to take torch and torchvision from, such as PyTorch's CPU builds
#   BOOK_JOBS=2         pages to execute at a time; else one after the other, with all cores
#   PORT=8000           for `make serve`
#   BOOK_URL=https://.../   the public address, for `make site` and `make read` (else the one in _config.yml)
#   OUTPUTS=FILE        for `make read`: the published outputs, as a file

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HTML := _build/html
NEWER := _build/newer
PORT ?= 8000

# without its cache of compiled modules, which images for containers turn off, each Python starts twice as slowly
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book read test check serve site sphinx notebooks assignments bench gpu lint links lock clean
.DELETE_ON_ERROR:

book: $(READY)
	@$(BIN)/companion data fetch || echo "Going on with synthetic stand-ins, which the pages say."
	$(BIN)/jb build .
	@echo; echo "The book is in $(HTML). Run: make serve (opened as a file, it has its diagrams in words and no pieces to play with)"

# the same pages from published outputs, checked by their digest; only what they lack is executed
read: $(READY)
	conditions=$$(PYTHONPATH=book/_ext $(BIN)/python -m tools.outputs $(OUTPUTS)) && BOOK_CONDITIONS="$$conditions" $(BIN)/jb build .
	@echo; echo "The book is in $(HTML). Run: make serve"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --cov=companion --cov-report=term:skip-covered --cov-fail-under=95

$(HTML)/index.html:
	$(MAKE) book

check: $(READY) $(BIN)/jupyter-lab $(HTML)/index.html
	$(BIN)/python -m pytest -m site tests/site/check_*.py

# the way out when Jupyter Book 1 ends: the same strict site by today's Sphinx, from the same cache of outputs
sphinx: $(READY) $(HTML)/index.html
	test -e $(NEWER)/bin/python || $(BIN)/python -c 'import sys, venv; venv.create(sys.argv[1], with_pip=True)' $(NEWER)
	$(NEWER)/bin/python -m pip install --quiet --no-compile --requirement tools/sphinx.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >$(NEWER)/book.pth
	mv $(NEWER)/book.pth "$$($(NEWER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(BIN)/jupyter-book config sphinx . >/dev/null
	PYTHONPATH=book/_ext $(NEWER)/bin/python -m sphinx . _build/sphinx; status=$$?; rm conf.py; exit $$status
	$(BIN)/python tools/equal.py $(HTML) _build/sphinx

serve: $(READY) $(HTML)/index.html
	@echo "http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(HTML)

# the folder to upload: built afresh, so that no page of an earlier table of contents stays in it
site: $(READY)
	rm -rf $(HTML)
	$(MAKE) book
	PYTHONPATH=book/_ext $(BIN)/python -m tools.site $(HTML)

notebooks: $(READY) $(HTML)/index.html
	rm -rf _build/notebooks
	mkdir -p _build/notebooks
	cp $(HTML)/_sources/book/*.ipynb _build/notebooks
	@echo "The chapters, executed, are in _build/notebooks."

# for a course: the same notebooks without their solutions
assignments: $(READY) $(HTML)/index.html
	@echo "The chapters, executed and without solutions, are in _build/assignments."

bench: $(READY)
	$(BIN)/python -m benchmarks

# where there is a GPU: what only it can show, then the runs that are sized for it, the shortest first;
# a run that was stopped goes on where it was
gpu: $(READY)
	$(BIN)/python -m pytest tests/test_gpu.py
	for name in classifier degradation; do \
	    $(BIN)/companion run $$name --scale full --seeds 3 --device cuda --resume --out companion/recorded || exit; \
	done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python tools/notebooks.py book/*.md book/reference/*.md
	$(BIN)/python tools/links.py
	$(BIN)/zizmor --quiet --offline .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff

# the addresses of others, which need the network and change without notice: no part of lint
links: $(READY)
	$(BIN)/python tools/links.py --online

lock: $(READY)
	$(BIN)/python tools/lock.py

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov

# only the page checks need JupyterLab: the extra `lab` of pyproject.toml, beside the pinned environment
$(BIN)/jupyter-lab: $(READY)
	grep -v '^--' requirements.txt >$(VENV)/pins.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(VENV)/pins.txt \
	    $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lab"])')
	touch $@

# the environment: made once, and again when what it is made from changes
$(READY): requirements.txt pyproject.toml
	PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" bash tools/setup.sh $(VENV)
	touch $@
