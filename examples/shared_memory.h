/* Frames that `sonomime stream --shm NAME` writes into shared memory, for C and C++.
 *
 *   struct sonomime_stream stream;
 *   if (sonomime_open(&stream, "NAME") != 0) ...          // not there (yet)
 *   uint8_t *pixels = malloc(sonomime_bytes(&stream));
 *   struct sonomime_frame frame = {0};
 *   for (;;)
 *       if (sonomime_read(&stream, &frame, pixels))       // there is a newer frame than `frame`
 *           show(pixels, stream.header->width, stream.header->height, stream.header->channels);
 *
 * The object has a header of 64 bytes and some slots, `step` bytes each: a slot's header of 64 bytes,
 * then height * width * channels bytes of pixels, rows from top to bottom; 1 channel is grey, 3 RGB.
 * A frame whose `made_at` is older than a second is not live, whatever its state says: the writer may have
 * been killed. Then show "no signal", close the stream, and try to open it again. (The last frame of a stream
 * that ends is black, with the state SONOMIME_NO_SIGNAL.) POSIX alone.
 *
 * Numbers are little-endian. The writer never waits: a frame that is written over while it is copied
 * is noticed, and the next one taken. Link with -lrt on old systems.
 */
#ifndef SONOMIME_SHARED_MEMORY_H
#define SONOMIME_SHARED_MEMORY_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum sonomime_state {
    SONOMIME_WARMING_UP, SONOMIME_LIVE, SONOMIME_HELD, SONOMIME_NO_SIGNAL, SONOMIME_DOUBTFUL
};

struct sonomime_header {
    char magic[8];      /* "SONOMIME" */
    uint32_t version;   /* 1 */
    uint32_t slots, width, height, channels;
    uint32_t step;      /* bytes from slot to slot */
    uint64_t newest;    /* number of the newest frame + 1; 0: none yet */
};

struct sonomime_slot {
    uint64_t number;    /* of its frame + 1; 0: it is being written */
    double made_at;     /* seconds since 1970 */
    uint32_t state;     /* enum sonomime_state: show it, a held picture is not live */
    uint32_t synthetic; /* 1 */
};

struct sonomime_frame {
    uint64_t number;    /* + 1; a gap: frames were missed */
    double made_at;
    enum sonomime_state state;
};

struct sonomime_stream {
    const struct sonomime_header *header;
    size_t size;
};

/* 0, or -1 if there is no such stream, or none that this header knows. */
static inline int sonomime_open(struct sonomime_stream *stream, const char *name)
{
    char path[256];
    struct stat about;
    int file;
    snprintf(path, sizeof path, "/%s", name);
    file = shm_open(path, O_RDONLY, 0);
    if (file < 0)
        return -1;
    if (fstat(file, &about) != 0 || about.st_size < 64) {
        close(file);
        return -1;
    }
    stream->size = (size_t)about.st_size;
    void *memory = mmap(NULL, stream->size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED)
        return -1;
    stream->header = (const struct sonomime_header *)memory;
    const struct sonomime_header *head = stream->header;
    uint64_t pixels = (uint64_t)head->width * head->height * head->channels;
    if (memcmp(head->magic, "SONOMIME", 8) != 0 || head->version != 1 || head->slots == 0 ||
        head->step < 64 + pixels || 64 + (uint64_t)head->slots * head->step > stream->size) {
        munmap(memory, stream->size);
        return -1;
    }
    return 0;
}

static inline void sonomime_close(struct sonomime_stream *stream)
{
    munmap((void *)stream->header, stream->size);
}

/* Bytes of a frame's pixels. */
static inline size_t sonomime_bytes(const struct sonomime_stream *stream)
{
    return (size_t)stream->header->width * stream->header->height * stream->header->channels;
}

/* Copy the newest frame; 1, or 0 if `frame` is still the newest. It is read without waiting. */
static inline int sonomime_read(
    const struct sonomime_stream *stream, struct sonomime_frame *frame, uint8_t *pixels)
{
    const struct sonomime_header *head = stream->header;
    for (;;) {
        uint64_t newest = __atomic_load_n(&head->newest, __ATOMIC_ACQUIRE);
        if (newest == 0 || newest == frame->number)
            return 0;
        const struct sonomime_slot *slot = (const struct sonomime_slot *)
            ((const char *)head + 64 + (newest - 1) % head->slots * head->step);
        if (__atomic_load_n(&slot->number, __ATOMIC_ACQUIRE) != newest)
            continue; /* the writer has gone around: there is a newer one */
        double made_at = slot->made_at;
        uint32_t state = slot->state;
        memcpy(pixels, (const char *)slot + 64, sonomime_bytes(stream));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&slot->number, __ATOMIC_RELAXED) != newest)
            continue;
        frame->number = newest;
        frame->made_at = made_at;
        frame->state = (enum sonomime_state)state;
        return 1;
    }
}

#endif
