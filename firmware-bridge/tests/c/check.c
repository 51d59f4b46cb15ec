/* Writes and reads what a test asks for on standard input, a line each. */
#include "../../include/outpost_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) printf("%02x", bytes[i]);
    printf(len ? "\n" : "-\n");
}

static size_t parse(const char *hex, uint8_t *out, size_t room)
{
    size_t len = 0;
    unsigned byte;
    while (len < room && sscanf(hex + 2 * len, "%2x", &byte) == 1) out[len++] = (uint8_t)byte;
    return len;
}

static void writers(void)
{
    uint8_t out[OW_MAX_MESSAGE];
    int32_t minus = -1;
    print(out, ow_write_reading(out, sizeof out, 4, -1500, 1000));
    print(out, ow_write_reading(out, sizeof out, 4, INT32_MIN, UINT32_MAX));
    print(out, ow_write_reading(out, sizeof out, 4, INT32_MAX, 0));
    print(out, ow_write_input(out, sizeof out, 1, OW_RELEASED, 5));
    print(out, ow_write_reply(out, sizeof out, 9, OW_BUSY, NULL));
    print(out, ow_write_reply(out, sizeof out, 9, OW_DONE, &minus));
    print(out, ow_write_log(out, sizeof out, OW_LOG_WARN, "low"));
    print(out, ow_write_clock_ask(out, sizeof out, 128));
    print(out, ow_write_ask(out, sizeof out, 2, "hi"));
    print(out, ow_write_reading(out, 3, 4, -1500, 1000));
}

static void readers(const uint8_t *message, size_t len)
{
    ow_command command;
    ow_clock clock;
    static ow_answer answer;
    uint8_t byte;
    if (ow_read_command(message, len, &command))
        printf("command %u %u %u %u\n", command.request, command.channel, command.action, command.amount);
    else if (ow_read_agent(message, len, &byte)) printf("agent %u\n", byte);
    else if (ow_read_cue(message, len, &byte)) printf("cue %u\n", byte);
    else if (ow_read_clock(message, len, &clock))
        printf("clock %lu %llu\n", (unsigned long)clock.asked_ms, (unsigned long long)clock.unix_ms);
    else if (ow_read_answer(message, len, &answer)) printf("answer %u %d %s\n", answer.request, answer.ok, answer.text);
    else printf("none\n");
}

int main(void)
{
    static char line[4096], hex[2048];
    static uint8_t bytes[1024], frame[OW_MAX_FRAME];
    while (fgets(line, sizeof line, stdin)) {
        unsigned check, kind, busy, sequence, next;
        unsigned long a, b, c, d;
        if (sscanf(line, "frame %u %lx %u %u %u %u %2047s", &check, &a, &kind, &busy, &sequence, &next, hex) == 7) {
            ow_header header = { (uint8_t)kind, busy != 0, (uint8_t)sequence, (uint8_t)next };
            size_t len = parse(hex, bytes, sizeof bytes);
            print(frame, ow_write_frame(frame, sizeof frame, (ow_check)check, (uint32_t)a, header, bytes, len));
        } else if (sscanf(line, "read %u %lx %2047s", &check, &a, hex) == 3) {
            size_t len = parse(hex, bytes, sizeof bytes);
            static ow_cutter cutter;
            for (size_t i = 0; i < len; i++) {
                ow_header header = { 0, false, 0, 0 };
                const uint8_t *payload = bytes;
                size_t size = 0;
                if (!ow_cut(&cutter, bytes[i])) continue;
                ow_result result = ow_read_frame(&cutter, (ow_check)check, (uint32_t)a, &header, &payload, &size);
                printf("%d %u %d %u %u ", result, header.kind, header.busy, header.sequence, header.next);
                print(payload, result == OW_OK ? size : 0);
            }
        } else if (sscanf(line, "key %lx %lx %lx %lx", &a, &b, &c, &d) == 4) {
            ow_identity from = { (uint32_t)a, (uint16_t)b }, to = { (uint32_t)c, (uint16_t)d };
            printf("%08lx\n", (unsigned long)ow_key(from, to));
        } else if (sscanf(line, "message %2047s", hex) == 1) {
            readers(bytes, parse(hex, bytes, sizeof bytes));
        } else if (strncmp(line, "writers", 7) == 0) {
            writers();
        }
    }
    return 0;
}
