# libsessauth and sessauth-gate: plain C beside the extension. Objects go to build/, because
# src/core/*.o in place are the extension's.

NODE_DIR    ?= build/node
OBJCOPY     ?= objcopy
NODE_SO      = libsessauth.so
NODE_SONAME  = $(NODE_SO).0
NODE_CFLAGS  = -std=gnu11 -O2 -g -Wall -Wextra -fPIC -fvisibility=hidden -fstack-protector-strong -pthread -Isrc \
               -D_GNU_SOURCE -DSESSAUTH_VERSION='"$(EXTVERSION)"' -I$(includedir) $(NODE_EXTRA_CFLAGS)
NODE_LIBS    = -levent_core -lhiredis -ljansson -lpq -lssl -lcrypto -pthread
NODE_OBJS    = $(patsubst src/%.c,$(NODE_DIR)/%.o,$(wildcard src/core/*.c src/node/*.c))
GATE_OBJS    = $(patsubst src/%.c,$(NODE_DIR)/%.o,$(wildcard src/gate/*.c))
NODE_HEADERS = $(wildcard src/core/*.h src/node/*.h src/gate/*.h)

all: $(NODE_DIR)/$(NODE_SO) $(NODE_DIR)/libsessauth.a $(NODE_DIR)/sessauth-gate $(NODE_DIR)/sessauth.pc $(NODE_DIR)/sessauth-gate.service

$(NODE_DIR)/%.o: src/%.c $(NODE_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(NODE_CFLAGS) -c $< -o $@

$(NODE_DIR)/$(NODE_SO): $(NODE_OBJS)
	$(CC) -shared -Wl,-soname,$(NODE_SONAME) -Wl,-z,relro,-z,now $(NODE_EXTRA_CFLAGS) $^ -L$(libdir) $(NODE_LIBS) -o $@

# One object whose only global symbols are the public ones: an archive knows no visibility, and a program that links
# it may well have a clock_now of its own.
$(NODE_DIR)/libsessauth.a: $(NODE_OBJS)
	$(LD) -r $^ -o $(NODE_DIR)/libsessauth.o
	$(OBJCOPY) --localize-hidden $(NODE_DIR)/libsessauth.o
	rm -f $@
	$(AR) rcs $@ $(NODE_DIR)/libsessauth.o

# The gate carries the library inside, so that it can be copied to a machine on its own.
$(NODE_DIR)/sessauth-gate: $(GATE_OBJS) $(NODE_DIR)/libsessauth.a
	$(CC) $(NODE_EXTRA_CFLAGS) -Wl,-z,relro,-z,now $^ -L$(libdir) -levent_extra $(NODE_LIBS) -o $@

# Whoever links libsessauth.a needs what is private. (A program that is static as a whole is not to be had with Debian's libpq, whose Kerberos
# has no archives.) Both files name directories, which another PG_CONFIG changes without a file to be seen by: so they are written each time.
.PHONY: $(NODE_DIR)/sessauth.pc $(NODE_DIR)/sessauth-gate.service
$(NODE_DIR)/sessauth.pc:
	@mkdir -p $(@D)
	printf '%s\n' 'libdir=$(libdir)' 'includedir=$(includedir)' '' 'Name: sessauth' \
		'Description: decide locally whether an access token of sessauth is live' 'Version: $(EXTVERSION)' \
		'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lsessauth' 'Libs.private: $(NODE_LIBS)' > $@

$(NODE_DIR)/sessauth-gate.service:
	@mkdir -p $(@D)
	sed 's|@bindir@|$(bindir)|' src/gate/sessauth-gate.service.in > $@

.PHONY: install-node uninstall-node clean-node
install: install-node
# The unit lies beside the extension's data, because where units belong no PostgreSQL knows: systemctl link, or a packager, takes it from there.
install-node: $(NODE_DIR)/$(NODE_SO) $(NODE_DIR)/libsessauth.a $(NODE_DIR)/sessauth-gate $(NODE_DIR)/sessauth.pc $(NODE_DIR)/sessauth-gate.service
	$(MKDIR_P) '$(DESTDIR)$(mandir)/man8' '$(DESTDIR)$(datadir)/sessauth' '$(DESTDIR)$(bindir)' '$(DESTDIR)$(libdir)/pkgconfig' '$(DESTDIR)$(includedir)'
	$(INSTALL_PROGRAM) $(NODE_DIR)/sessauth-gate '$(DESTDIR)$(bindir)/'
	$(INSTALL_SHLIB) $(NODE_DIR)/$(NODE_SO) '$(DESTDIR)$(libdir)/$(NODE_SONAME)'
	ln -sf $(NODE_SONAME) '$(DESTDIR)$(libdir)/$(NODE_SO)'
	$(INSTALL_DATA) $(NODE_DIR)/libsessauth.a '$(DESTDIR)$(libdir)/'
	$(INSTALL_DATA) src/node/sessauth.h '$(DESTDIR)$(includedir)/'
	$(INSTALL_DATA) $(NODE_DIR)/sessauth.pc '$(DESTDIR)$(libdir)/pkgconfig/'
	$(INSTALL_DATA) doc/sessauth-gate.8 '$(DESTDIR)$(mandir)/man8/'
	$(INSTALL_DATA) $(NODE_DIR)/sessauth-gate.service '$(DESTDIR)$(datadir)/sessauth/'

uninstall: uninstall-node
uninstall-node:
	rm -f '$(DESTDIR)$(bindir)/sessauth-gate' '$(DESTDIR)$(libdir)/$(NODE_SONAME)' '$(DESTDIR)$(libdir)/$(NODE_SO)' \
		'$(DESTDIR)$(libdir)/libsessauth.a' '$(DESTDIR)$(includedir)/sessauth.h' '$(DESTDIR)$(libdir)/pkgconfig/sessauth.pc' \
		'$(DESTDIR)$(mandir)/man8/sessauth-gate.8' '$(DESTDIR)$(datadir)/sessauth/sessauth-gate.service'

clean: clean-node
clean-node:
	rm -rf $(NODE_DIR)
