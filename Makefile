# `make demo` and `make test` set up all that they need; see scripts/setup. `make help` lists the rest.

PYTHON = .venv/bin/python
CACHE = -p no:cacheprovider
# Compiled once, whatever the machine prefers: hundreds of processes of ours are started.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint chaos mutants kube kube-build kube-stop bench clean help

demo: ## Train a real example on a throw-away sshd on this machine; show the results
	@scripts/setup demo
	@$(PYTHON) -m cvl.testing.demo

test: ## Run the tests; ARGS='cvl/tests/test_scope.py -k signal' runs some of them
	@scripts/setup test
	@$(PYTHON) -m pytest -n 4 --durations 15 --durations-min 10 $(CACHE) $(ARGS)

lint: ## Check style and types: ruff, and mypy --strict
	@scripts/setup lint
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy cvl bench

chaos: ## Kill cvl at random points for MINUTES=30 on hostile hosts; report what was left: nothing
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.chaos --minutes $(or $(MINUTES),30)

mutants: ## Break one promise after the other, and see that a test notices each
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.mutants $(ARGS)

kube: kube-build ## Start a real Kubernetes to try things on; its servers are built once per machine
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.kube_keeper start

kube-build: ## Build the servers of that Kubernetes: five to ten minutes
	@scripts/kube-build

kube-stop: ## Stop that Kubernetes
	@scripts/setup test
	@$(PYTHON) -m cvl.testing.kube_keeper stop

bench: ## Measure cvl beside what one would use instead; write docs/benchmarks.md
	@scripts/setup test
	@$(PYTHON) -m bench $(ARGS)

clean: ## Remove what the other targets have made here
	rm -rf .venv build dist cvl-runs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
