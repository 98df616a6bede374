# Targets for people; cargo does the work.

CARGO ?= cargo
SKIPPED = $(or $(CARGO_TARGET_DIR),target)/skipped-tests.txt

.PHONY: all demo test chaos check bench clean

all:
	$(CARGO) build --release --workspace

# Builds a farm from nothing and lets it work, in target/demo.
demo:
	sh contrib/demo/demo.sh

# Every test. What a missing optional program has kept from running is said at the end.
test:
	@mkdir -p $(dir $(SKIPPED)) && : > $(SKIPPED)
	$(CARGO) test --workspace
	@if [ -s $(SKIPPED) ]; then echo; echo "SKIPPED, for want of a program:"; cat $(SKIPPED); fi

# Kills farms at random instants, many times. KILLS=N (300) and SEED=N (the time) choose what happens; the seed is
# printed, and repeats it.
chaos:
	PEIPKG_CHAOS_KILLS=$(or $(KILLS),300) PEIPKG_CHAOS_SEED=$(or $(SEED),$(shell date +%s)) \
		$(CARGO) test --test farm chaos:: -- --nocapture

# What a change must pass before it is committed, beside the tests.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Times and memory of a farm at work, in target/bench/, and of the daemon under load. It takes some minutes and a few GiB of disk.
bench:
	sh contrib/bench/builds.sh
	$(CARGO) bench --bench daemon

clean:
	$(CARGO) clean
