mkdir -p /tmp/tree; cd /tmp/tree
for i in $(seq 30); do
    echo "int f$i(int x) { return x * $i; }" > "f$i.c"
    echo "int f$i(int);" >> all.h
done
{ echo '#include <stdio.h>'; echo '#include "all.h"'; echo 'int main(void) { int s = 0;'
  for i in $(seq 30); do echo "s += f$i(2);"; done; echo 'printf("%d\n", s); return 0; }'; } > main.c
cat > Makefile <<'M'
objects := $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(objects)
	@$(CC) -o $@ $^
%.o: %.c
	@$(CC) -O1 -c -o $@ $<
M
make -j4; ./prog; make -j4; ls *.o | wc -l
