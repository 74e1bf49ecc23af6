# Benchmarks: each measures the product and a floor in the same run, alternating.
#
#   make bench-ledger	SQL calls against plain SQL that writes the same rows
#   make bench-node		decisions of the library and the gate against Redis, OpenSSL and a server that always says yes
#   make bench-mirror	the way to Redis and to listeners against a flush and XADD, pg_notify and redis-cli --pipe

.PHONY: bench-ledger bench-node bench-mirror
bench-node:
	@PG_CONFIG='$(PG_CONFIG)' test/bench/run node
bench-ledger:
	@PG_CONFIG='$(PG_CONFIG)' test/bench/run ledger
bench-mirror:
	@PG_CONFIG='$(PG_CONFIG)' test/bench/run mirror

# The floor's signature and hashes, as a module for the server.
build/bench/sessauth_floor.so: test/bench/floor.c $(patsubst %.c,%.o,$(wildcard src/core/*.c))
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_SL) -shared -o $@ $^ -ljansson -lcrypto -Wl,-Bsymbolic -Wl,--version-script=test/bench/floor.map

build/bench/node: test/bench/node.c $(wildcard src/core/*.c) $(NODE_DIR)/libsessauth.a
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -D_GNU_SOURCE -Isrc -pthread $(filter %.c %.a,$^) -L$(libdir) $(NODE_LIBS) -o $@

build/bench/http: test/bench/http.c test/bench/pauses.c test/bench/pauses.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -D_GNU_SOURCE -pthread $(filter %.c,$^) -L$(libdir) -levent_core -levent_extra -o $@

build/bench/mirror: test/bench/mirror.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -I$(includedir) $< -L$(libdir) -lhiredis -lpq -o $@

.PHONY: bench-floor
bench-floor: build/bench/sessauth_floor.so build/bench/node build/bench/http build/bench/mirror build/tools/publisher
