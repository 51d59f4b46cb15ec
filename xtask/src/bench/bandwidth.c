// Streaming read bandwidth in GB/s, best of several passes: bandwidth THREADS.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PASSES = 5, MOST = 64 };
static const size_t WORDS = (size_t)768 << 17;  // 768 MiB for each thread, beyond any cache.

static pthread_barrier_t barrier;

struct share {
    const uint64_t *words;
    uint64_t sum;
};

static void *read_share(void *argument) {
    struct share *share = argument;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&barrier);
        // Several sums, so that no addition waits for the one before it.
        uint64_t sums[64] = {0};
        for (size_t i = 0; i < WORDS; i += 64)
            for (int j = 0; j < 64; j++) sums[j] += share->words[i + j];
        for (int j = 0; j < 64; j++) share->sum += sums[j];
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 1;
    if (threads < 1 || threads > MOST) return 2;
    pthread_t ids[MOST];
    struct share shares[MOST];
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (int i = 0; i < threads; i++) {
        uint64_t *words = aligned_alloc(1 << 21, WORDS * sizeof *words);
        if (!words) return 1;
        memset(words, i + 1, WORDS * sizeof *words);
        shares[i] = (struct share){words, 0};
        if (pthread_create(&ids[i], NULL, read_share, &shares[i])) return 1;
    }
    double best = 1e9;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&barrier);
        double start = now();
        pthread_barrier_wait(&barrier);
        double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    uint64_t sum = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        sum += shares[i].sum;
    }
    // The sum is printed so that no read can be left out.
    printf("%.3f %llu\n", 1e-9 * threads * WORDS * sizeof(uint64_t) / best, (unsigned long long)sum);
    return 0;
}
