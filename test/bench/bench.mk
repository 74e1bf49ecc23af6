# Benchmarks: each measures the product and a floor in the same run, alternating.
#
#   make bench-ledger	SQL calls against plain SQL that writes the same rows

.PHONY: bench-ledger
bench-ledger:
	@PG_CONFIG='$(PG_CONFIG)' test/bench/run ledger

# The floor's signature and hashes, as a module for the server.
build/bench/sessauth_floor.so: test/bench/floor.c $(patsubst %.c,%.o,$(wildcard src/core/*.c))
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_SL) -shared -o $@ $^ -ljansson -lcrypto -Wl,-Bsymbolic -Wl,--version-script=test/bench/floor.map

.PHONY: bench-floor
bench-floor: build/bench/sessauth_floor.so
