/* The wire protocol of Outpost, version 2, for firmware in C.
 *
 * C99, no allocation, no standard library but memcpy and friends. One file to compile: c/outpost_wire.c.
 * firmware-bridge/src/wire/mod.rs describes the bytes, docs/firmware.md shows how to start.
 * A test holds every byte that this writes against the Rust encoder.
 *
 * Start at ow_link: it greets, answers, repeats and drops duplicates; a message at a time is under way.
 */
#ifndef OUTPOST_WIRE_H
#define OUTPOST_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OW_VERSION 2
#define OW_SCHEMA 0xdeb67af8u
#define OW_MAX_BODY 352u
#define OW_MAX_FRAME 356u
/* Most bytes of a message: a text of 96, and what goes around it. */
#define OW_MAX_MESSAGE 104u
#define OW_MAX_TEXT 96u
#define OW_MAX_NAME 20u
#define OW_MAX_CAPABILITIES 12u

typedef enum { OW_CRC32 = 0, OW_CRC16 = 1 } ow_check;
typedef enum { OW_HOST = 0, OW_DEVICE = 1 } ow_role;
/* Kinds of frames. */
enum { OW_HELLO = 0, OW_DATA = 1, OW_ACK = 2 };
/* Numbers of messages: the first byte of each. */
enum {
    OW_READING = 0, OW_INPUT = 1, OW_COMMAND = 2, OW_REPLY = 3, OW_AGENT = 4, OW_CUE = 5,
    OW_LOG = 6, OW_CLOCK_ASK = 7, OW_CLOCK = 8, OW_ASK = 9, OW_ANSWER = 10
};
/* Functions of channels. */
enum {
    OW_TEMPERATURE = 0, OW_HUMIDITY = 1, OW_ILLUMINANCE = 2, OW_PRESSURE = 3, OW_DISTANCE = 4,
    OW_VOLTAGE = 5, OW_CURRENT = 6, OW_BUTTON = 32, OW_MOTION = 33, OW_WAKE = 34, OW_SWITCH = 64,
    OW_DIMMER = 65, OW_PIN = 66, OW_INDICATOR = 96, OW_BUZZER = 97
};
enum { OW_PRESSED = 0, OW_RELEASED = 1, OW_MOTION_STARTED = 2, OW_MOTION_ENDED = 3, OW_WOKE = 4 };
enum { OW_OFF = 0, OW_ON = 1, OW_LEVEL = 2, OW_PULSE = 3, OW_READ = 4, OW_MAKE_INPUT = 5 };
enum { OW_DONE = 0, OW_NO_CHANNEL = 1, OW_UNSUPPORTED = 2, OW_BUSY = 3, OW_FAILED = 4 };
enum {
    OW_IDLE = 0, OW_LISTENING = 1, OW_THINKING = 2, OW_ACTING = 3, OW_MUTED = 4, OW_AGENT_FAILED = 5
};
enum { OW_LOG_ERROR = 0, OW_LOG_WARN = 1, OW_LOG_INFO = 2, OW_LOG_DEBUG = 3 };

/* Names one end in one session. */
typedef struct { uint32_t boot; uint16_t epoch; } ow_identity;

typedef struct { uint8_t channel; uint8_t function; const char *name; } ow_capability;

/* ---- Messages. The writers give the length, or 0 if it does not fit. ---- */

size_t ow_write_reading(uint8_t *out, size_t room, uint8_t channel, int32_t value, uint32_t uptime_ms);
size_t ow_write_input(uint8_t *out, size_t room, uint8_t channel, uint8_t kind, uint32_t uptime_ms);
/* value: what was read, or a null pointer. */
size_t ow_write_reply(uint8_t *out, size_t room, uint8_t request, uint8_t outcome, const int32_t *value);
size_t ow_write_log(uint8_t *out, size_t room, uint8_t level, const char *text);
size_t ow_write_clock_ask(uint8_t *out, size_t room, uint32_t uptime_ms);
size_t ow_write_ask(uint8_t *out, size_t room, uint8_t request, const char *text);

typedef struct { uint8_t request, channel, action; uint16_t amount; } ow_command;
typedef struct { uint32_t asked_ms; uint64_t unix_ms; } ow_clock;
typedef struct { uint8_t request; bool ok; char text[OW_MAX_TEXT + 1]; } ow_answer;

/* The readers are true if the message is of this kind and sound. */
bool ow_read_command(const uint8_t *message, size_t len, ow_command *out);
bool ow_read_agent(const uint8_t *message, size_t len, uint8_t *state);
bool ow_read_cue(const uint8_t *message, size_t len, uint8_t *cue);
bool ow_read_clock(const uint8_t *message, size_t len, ow_clock *out);
bool ow_read_answer(const uint8_t *message, size_t len, ow_answer *out);

/* ---- Frames. ---- */

/* What the checksums of frames from one end to the other cover besides the body; 0 for hellos. */
uint32_t ow_key(ow_identity from, ow_identity to);

typedef struct { uint8_t kind; bool busy; uint8_t sequence, next; } ow_header;

/* The length of the frame with its final zero, or 0 if it does not fit. */
size_t ow_write_frame(uint8_t *out, size_t room, ow_check check, uint32_t key, ow_header header,
                      const uint8_t *payload, size_t len);

typedef enum {
    OW_OK, OW_BAD_LENGTH, OW_BAD_STUFFING, OW_BAD_CHECKSUM, OW_OTHER_PROTOCOL, OW_OTHER_CHECK,
    OW_OTHER_VERSION, OW_BAD_KIND
} ow_result;

typedef struct { uint8_t data[OW_MAX_FRAME]; size_t len; bool overlong, ended; } ow_cutter;

/* Takes the next byte; true where it ends a frame that ow_read_frame can look at. */
bool ow_cut(ow_cutter *cutter, uint8_t byte);

/* Reads the frame in the cutter, in place. payload points into the cutter until the next ow_cut. */
ow_result ow_read_frame(ow_cutter *cutter, ow_check check, uint32_t key, ow_header *header,
                        const uint8_t **payload, size_t *len);

/* ---- The link, with a window of one message. ---- */

typedef struct {
    /* Which program this is, at most 24 bytes, and its version. */
    const char *firmware;
    uint16_t version[3];
    /* The messages that it understands: bit n for message number n. */
    uint32_t kinds;
    const ow_capability *capabilities;
    size_t capability_count;
    ow_check check;
    /* Sends all of these bytes, or queues them. */
    void (*write)(void *context, const uint8_t *bytes, size_t len);
    /* A message arrived: use the readers. Called once for each. */
    void (*message)(void *context, const uint8_t *message, size_t len);
    /* A session began or ended; may be null. */
    void (*linked)(void *context, bool up);
    void *context;
} ow_board;

typedef struct {
    const ow_board *board;
    ow_cutter cutter;
    ow_identity me, peer;
    bool up, knows_peer, receipt_due, hello_due, busy, peer_busy, in_flight, sent, flown;
    /* The other end speaks another version or checksum; for display. */
    bool refused;
    uint8_t base, next, tries;
    uint32_t peer_kinds, key_in, key_out, hello_at, resend_at, heard_at, spoke_at, refused_at;
    uint8_t message[OW_MAX_MESSAGE];
    size_t message_len;
} ow_link;

/* boot has to differ from boot to boot; now is in milliseconds and may wrap. */
void ow_link_init(ow_link *link, const ow_board *board, uint32_t boot, uint32_t now);
/* Takes the next byte from the line. */
void ow_link_receive(ow_link *link, uint8_t byte, uint32_t now);
/* Sends what is due. Call it every few milliseconds and after each message. */
void ow_link_poll(ow_link *link, uint32_t now);
/* While busy, no message is taken; the host keeps it and waits. */
void ow_link_set_busy(ow_link *link, bool busy);
/* Whether ow_link_send would take a message. */
bool ow_link_has_room(const ow_link *link);
/* Takes a message for sending; false if there is no room, no session, or the host does not know its kind. */
bool ow_link_send(ow_link *link, const uint8_t *message, size_t len);

#ifdef __cplusplus
}
#endif
#endif
