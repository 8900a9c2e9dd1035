# `make demo` and `make test` set up all that they need; see scripts/setup.

PYTHON = .venv/bin/python
CACHE = -p no:cacheprovider
# Compiled once, whatever the machine prefers: hundreds of processes of ours are started.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test bench chaos kube kube-build kube-stop lint clean

demo:
	@scripts/setup demo
	@$(PYTHON) -m cvl.testing.demo

test:
	@scripts/setup test
	@$(PYTHON) -m pytest -n 4 $(CACHE) $(ARGS)

# For MINUTES, kills cvl at points drawn by lot, turns hosts hostile and damages ledgers, and reports
# what was left: nothing.
chaos:
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.chaos --minutes $(or $(MINUTES),30)

# A real Kubernetes to try things on. Its servers are built first, once per machine.
kube: kube-build
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.kube_keeper start

kube-build:
	@scripts/kube-build

kube-stop:
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.kube_keeper stop

# Measures cvl beside what one would use instead, and writes docs/benchmarks.md.
bench:
	@scripts/setup test
	@$(PYTHON) -m bench $(ARGS)

lint:
	@scripts/setup lint
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy cvl bench

clean:
	rm -rf .venv build dist cvl-runs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
