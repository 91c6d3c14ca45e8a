# GNU make 3.81, which macOS ships, is enough. Everything happens in .venv, which the targets make themselves.

VENV := .venv
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz cpu-fuzz neon-test metal-fuzz bench metal-proof

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.with-demo ## Train, compile, compare: a tour in three minutes
	@$(PY) -m examples.demo

test: lint ## Check format, style and types, then run the tests
	@echo "== pytest"
	@$(PY) -m pytest -n auto --dist loadfile -W error::DeprecationWarning

lint: $(VENV)/.with-test ## Check format, style and types
	@echo "== ruff format"
	@$(PY) -m ruff format --check .
	@echo "== ruff check"
	@$(PY) -m ruff check .
	@echo "== pyright"
	@$(PY) -m pyright

fuzz: $(VENV)/.with-test ## Random programs against float64: FUZZ_COUNT=1000, FUZZ_SEED=now, FUZZ_FIRST=0
	@seed=$${FUZZ_SEED:-$$(date +%s)}; count=$${FUZZ_COUNT:-1000}; \
	echo "== FUZZ_SEED=$$seed FUZZ_COUNT=$$count CONVJIT_NUM_THREADS=$${CONVJIT_NUM_THREADS:-all}"; \
	FUZZ_SEED=$$seed FUZZ_COUNT=$$count $(PY) tests/fuzz

cpu-fuzz: $(VENV)/.with-test ## Random kernels by any CPU schedule, on any vectors: CPU_FUZZ_COUNT=2000, CPU_FUZZ_SEED=now
	@seed=$${CPU_FUZZ_SEED:-$$(date +%s)}; count=$${CPU_FUZZ_COUNT:-2000}; \
	echo "== CPU_FUZZ_SEED=$$seed CPU_FUZZ_COUNT=$$count"; \
	CPU_FUZZ_SEED=$$seed CPU_FUZZ_COUNT=$$count $(PY) -m pytest tests/numerics/test_cpu_candidates.py

neon-test: $(VENV)/.with-test ## CPU kernels on an emulated Arm: NEON_COUNT=150; needs gcc-aarch64-linux-gnu and qemu-user
	@NEON_COUNT=$${NEON_COUNT:-150} $(PY) -m pytest -rs tests/numerics/test_cpu_machines.py -k "aarch64 or clang"

metal-fuzz: $(VENV)/.with-test ## Random Metal kernels under the checker: METAL_FUZZ_COUNT=2000, METAL_FUZZ_SEED=now
	@seed=$${METAL_FUZZ_SEED:-$$(date +%s)}; count=$${METAL_FUZZ_COUNT:-2000}; \
	echo "== METAL_FUZZ_SEED=$$seed METAL_FUZZ_COUNT=$$count"; \
	METAL_FUZZ_SEED=$$seed METAL_FUZZ_COUNT=$$count $(PY) -m pytest tests/simulator/test_random_kernels.py

bench: $(VENV)/.with-bench ## Measure against plain MLX and other engines; results go to benchmarks/results
	@$(PY) -m benchmarks.layers --save
	@$(PY) -m benchmarks.layers --save --user
	@$(PY) -m benchmarks.layers --save --chain
	@$(PY) -m benchmarks.layers --save --isa avx2
	@$(PY) -m benchmarks.layers --save --dtype bf16
	@$(PY) -m benchmarks.networks --save
	@$(PY) -m benchmarks.networks resnet50 --dtype bf16 --save
	@$(PY) -m benchmarks.resnet50
	@$(PY) -m benchmarks.train_step
	@$(PY) -m benchmarks.metal_text
	@$(PY) -m benchmarks.metal_counters

metal-proof: $(VENV)/.with-bench ## On a Mac: check and time every Metal kernel; elsewhere check them on the simulator
	@$(PY) -m benchmarks.metal_proof $(ARGS)

# A stamp for each extra of pyproject.toml. Where the machine has no C or C++ compiler, a wheel brings one.
$(VENV)/.with-%: pyproject.toml | $(PY)
	@extras=$*; \
	if ! cc --version >/dev/null 2>&1 || ! c++ --version >/dev/null 2>&1; then \
	    echo "No C and C++ compiler found (cc, c++): installing the ziglang wheel"; extras=$*,zig; \
	fi; \
	echo "Installing convjit and its $$extras dependencies into $(VENV)"; \
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[$$extras]" || { \
	    echo "Could not install: see pip's message above. It needs PyPI or an index of yours (PIP_INDEX_URL)." >&2; \
	    exit 1; \
	}
	@touch $@

$(PY):
	@for python in python3.13 python3.12 python3.11 python3 python python3.14; do \
	    if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "Making $(VENV) with $$python"; \
	        exec $$python -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "convjit needs Python 3.11 or newer with its venv module, and found none." >&2; \
	echo "On Debian and Ubuntu: apt install python3-venv; on macOS: brew install python" >&2; \
	exit 1
