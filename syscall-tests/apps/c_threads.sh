cd /tmp
cat > t.c <<'C'
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
static atomic_long total; static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER; static long plain;
static _Thread_local int mine;
static void *work(void *arg) {
    for (int i = 0; i < 20000; i++) { atomic_fetch_add(&total, 1); pthread_mutex_lock(&m); plain++; pthread_mutex_unlock(&m); mine++; }
    return (void *)(long)mine;
}
int main(void) {
    pthread_t t[8]; long sum = 0;
    for (long i = 0; i < 8; i++) pthread_create(&t[i], 0, work, (void *)i);
    for (int i = 0; i < 8; i++) { void *r; pthread_join(t[i], &r); sum += (long)r; }
    printf("%ld %ld %ld %d\n", atomic_load(&total), plain, sum, mine);
}
C
gcc -O2 -Wall -pthread -o t t.c; ./t
gcc -O2 -pthread -static -o ts t.c; ./ts
gcc -fPIE -pie -g -o tp t.c -pthread; ./tp
