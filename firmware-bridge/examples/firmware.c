/* A firmware in C: one button, one relay, one LED. Here the UART is standard input and output, so that it runs on any
 * machine; on a board, uart_read, uart_write, milliseconds and the pins are the only parts to replace.
 *
 *   cc -std=c99 firmware.c ../c/outpost_wire.c -o firmware
 */
#define _POSIX_C_SOURCE 200809L
#include "../include/outpost_wire.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { BUTTON = 0, RELAY = 1, LED = 2 };

static const ow_capability channels[] = {
    { BUTTON, OW_BUTTON, "talk" },
    { RELAY, OW_SWITCH, "light/kitchen" },
    { LED, OW_INDICATOR, "status" },
};

static ow_link outpost;
static int32_t relay;
/* One reply can wait; while it does, no further command is taken. */
static uint8_t reply[OW_MAX_MESSAGE];
static size_t reply_len;

static uint32_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

static bool uart_read(uint8_t *byte)
{
    struct pollfd line = { STDIN_FILENO, POLLIN, 0 };
    if (poll(&line, 1, 1) <= 0) return false;
    if (read(STDIN_FILENO, byte, 1) == 1) return true;
    _exit(0);
}

static void uart_write(void *context, const uint8_t *bytes, size_t len)
{
    (void)context;
    while (len > 0) {
        ssize_t count = write(STDOUT_FILENO, bytes, len);
        if (count <= 0) _exit(0);
        bytes += count;
        len -= (size_t)count;
    }
}

static void on_message(void *context, const uint8_t *message, size_t len)
{
    ow_command command;
    uint8_t state;
    (void)context;
    if (ow_read_agent(message, len, &state)) {
        fprintf(stderr, "LED %u\n", state);
    } else if (ow_read_command(message, len, &command)) {
        uint8_t outcome = OW_DONE;
        const int32_t *value = NULL;
        if (command.channel != RELAY) outcome = OW_NO_CHANNEL;
        else if (command.action == OW_READ) value = &relay;
        else if (command.action <= OW_ON) relay = command.action;
        else outcome = OW_UNSUPPORTED;
        reply_len = ow_write_reply(reply, sizeof reply, command.request, outcome, value);
    }
}

static void on_link(void *context, bool up)
{
    uint8_t message[OW_MAX_MESSAGE];
    (void)context;
    reply_len = 0;
    if (up) ow_link_send(&outpost, message, ow_write_input(message, sizeof message, BUTTON, OW_PRESSED, milliseconds()));
}

int main(void)
{
    static const ow_board board = {
        .firmware = "porch-c",
        .version = { 1, 0, 0 },
        .kinds = 1u << OW_COMMAND | 1u << OW_AGENT,
        .capabilities = channels,
        .capability_count = sizeof channels / sizeof channels[0],
        .check = OW_CRC32,
        .write = uart_write,
        .message = on_message,
        .linked = on_link,
    };
    /* A board without a random number generator counts its boots in flash. */
    ow_link_init(&outpost, &board, (uint32_t)time(NULL) ^ (uint32_t)getpid() << 16, milliseconds());
    for (;;) {
        uint8_t byte;
        if (uart_read(&byte)) ow_link_receive(&outpost, byte, milliseconds());
        if (reply_len && ow_link_send(&outpost, reply, reply_len)) reply_len = 0;
        ow_link_set_busy(&outpost, reply_len > 0);
        ow_link_poll(&outpost, milliseconds());
    }
}
