# Every recipe is a one-liner that also runs by hand.

# formatting, lints, house rules
check:
    cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && cargo test -q --test tidy --test docs

# all Rust tests
test:
    tests/run rust

# SMTP transcripts through the core alone
transcripts *names:
    WEIR_TRANSCRIPTS="{{names}}" cargo test -q --test transcripts -- --nocapture

# the seeded simulation; a failure prints its seed
sim *seed:
    WEIR_SIM_SEED="{{seed}}" cargo test -q --test sim -- --nocapture

# a day of mail from 200 good senders and 10,000 bots: what weir and others make of it
botnet *seed:
    WEIR_BOTNET_SEED="{{seed}}" cargo test -q --test sim botnet::botnet -- --nocapture

# the real binary against real mail servers
e2e *modules:
    WEIR_E2E="{{modules}}" tests/run e2e

# ten seconds a fuzz target
fuzz-smoke:
    tests/run fuzz

# regenerate the reference pages
docs:
    cargo run -q --bin weir -- docs flags > docs/FLAGS.md && cargo run -q --bin weir -- docs metrics > docs/METRICS.md

# every profile of weir-bench for some seconds: asserts integrity, no speed
bench-smoke:
    tests/run bench

# weir and the bare sink, workload by workload, into bench-harness/results/bench/
bench *workloads:
    cargo build -q --release --workspace && target/release/weir-bench peers {{workloads}} --peers direct,weir --into bench-harness/results/bench

# weir beside haproxy, nginx and postfix, in rounds that take turns, into bench-harness/results/peers/
bench-peers *workloads:
    cargo build -q --release --workspace && target/release/weir-bench peers {{workloads}} --into bench-harness/results/peers

# the same, kept under a name in bench-harness/results/
record name *workloads:
    cargo build -q --release --workspace && target/release/weir-bench peers {{workloads}} --into bench-harness/results/{{name}}

# what bad clients cost and good ones notice of them (a quarter of an hour), into bench-harness/results/figures/
figures *names:
    cargo build -q --release --workspace && target/release/weir-bench figures {{names}} --into bench-harness/results/figures

# what the pipeline runs
ci:
    .ci/run
