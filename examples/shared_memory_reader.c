/* Read frames of `sonomime stream --shm NAME`, and say how they come.
 *
 *   cc -O2 -o reader examples/shared_memory_reader.c
 *   ./reader NAME 100 last.pgm      # 100 frames, the last one as a picture
 */
#include <stdlib.h>
#include <time.h>

#include "shared_memory.h"

static const char *STATES[] = {"warming up", "live", "held", "no signal", "doubtful"};

int main(int count, char **words)
{
    struct sonomime_stream stream;
    struct sonomime_frame frame = {0};
    const struct timespec pause = {0, 200000}; /* 0.2 ms */
    if (count < 3) {
        fprintf(stderr, "usage: %s NAME FRAMES [LAST.pgm]\n", words[0]);
        return 2;
    }
    for (int tries = 0; sonomime_open(&stream, words[1]) != 0; tries++) {
        if (tries == 50000) {
            fprintf(stderr, "error: there is no stream %s\n", words[1]);
            return 1;
        }
        nanosleep(&pause, NULL);
    }
    uint8_t *pixels = malloc(sonomime_bytes(&stream));
    uint64_t missed = 0;
    for (long left = atol(words[2]); left > 0; left--) {
        uint64_t last = frame.number;
        for (long waited = 0; !sonomime_read(&stream, &frame, pixels); waited++) {
            if (waited == 50000) {
                fprintf(stderr, "error: no frame for 10 s\n");
                return 1;
            }
            nanosleep(&pause, NULL);
        }
        missed += last == 0 ? 0 : frame.number - last - 1;
    }
    const struct sonomime_header *head = stream.header;
    printf("%u x %u x %u, %s, %lu missed\n", head->width, head->height, head->channels,
        STATES[frame.state], (unsigned long)missed);
    if (count > 3) {
        FILE *file = fopen(words[3], "wb");
        if (file == NULL)
            return 1;
        fprintf(file, "P%c\n%u %u\n255\n", head->channels == 1 ? '5' : '6', head->width, head->height);
        fwrite(pixels, 1, sonomime_bytes(&stream), file);
        fclose(file);
    }
    free(pixels);
    sonomime_close(&stream);
    return 0;
}
