/* See ../include/outpost_wire.h. */
#include "../include/outpost_wire.h"

#include <string.h>

/* ---- Values, as postcard writes them. ---- */

typedef struct { uint8_t *data; size_t room, len; bool full; } writer;
typedef struct { const uint8_t *at, *end; bool bad; } reader;

static void put(writer *w, uint8_t byte)
{
    if (w->len < w->room) w->data[w->len++] = byte;
    else w->full = true;
}

static void put_number(writer *w, uint64_t value)
{
    while (value >= 0x80) {
        put(w, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    put(w, (uint8_t)value);
}

static void put_signed(writer *w, int32_t value)
{
    uint32_t bits = (uint32_t)value << 1;
    put_number(w, value < 0 ? ~bits : bits);
}

/* What does not fit is cut, never within a character. */
static void put_text(writer *w, const char *text, size_t most)
{
    size_t len = strlen(text);
    if (len > most) {
        len = most;
        while (len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80) len--;
    }
    put_number(w, len);
    for (size_t i = 0; i < len; i++) put(w, (uint8_t)text[i]);
}

static size_t finish(const writer *w) { return w->full ? 0 : w->len; }

static uint8_t get(reader *r)
{
    if (r->at < r->end) return *r->at++;
    r->bad = true;
    return 0;
}

static uint64_t get_number(reader *r, unsigned bits)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < bits; shift += 7) {
        uint8_t byte = get(r);
        uint64_t part = byte & 0x7f;
        if (bits - shift < 7 && part >> (bits - shift)) r->bad = true;
        value |= part << shift;
        if (!(byte & 0x80)) return value;
    }
    r->bad = true;
    return 0;
}

static void get_text(reader *r, char *out, size_t most)
{
    size_t len = (size_t)get_number(r, 32);
    if (len > most || len > (size_t)(r->end - r->at)) {
        r->bad = true;
        len = 0;
    }
    memcpy(out, r->at, len);
    out[len] = 0;
    r->at += len;
}

/* ---- Messages. ---- */

size_t ow_write_reading(uint8_t *out, size_t room, uint8_t channel, int32_t value, uint32_t uptime_ms)
{
    writer w = { out, room, 0, false };
    put(&w, OW_READING);
    put(&w, channel);
    put_signed(&w, value);
    put_number(&w, uptime_ms);
    return finish(&w);
}

size_t ow_write_input(uint8_t *out, size_t room, uint8_t channel, uint8_t kind, uint32_t uptime_ms)
{
    writer w = { out, room, 0, false };
    put(&w, OW_INPUT);
    put(&w, channel);
    put(&w, kind);
    put_number(&w, uptime_ms);
    return finish(&w);
}

size_t ow_write_reply(uint8_t *out, size_t room, uint8_t request, uint8_t outcome, const int32_t *value)
{
    writer w = { out, room, 0, false };
    put(&w, OW_REPLY);
    put(&w, request);
    put(&w, outcome);
    put(&w, value != NULL);
    if (value) put_signed(&w, *value);
    return finish(&w);
}

size_t ow_write_log(uint8_t *out, size_t room, uint8_t level, const char *text)
{
    writer w = { out, room, 0, false };
    put(&w, OW_LOG);
    put(&w, level);
    put_text(&w, text, OW_MAX_TEXT);
    return finish(&w);
}

size_t ow_write_clock_ask(uint8_t *out, size_t room, uint32_t uptime_ms)
{
    writer w = { out, room, 0, false };
    put(&w, OW_CLOCK_ASK);
    put_number(&w, uptime_ms);
    return finish(&w);
}

size_t ow_write_ask(uint8_t *out, size_t room, uint8_t request, const char *text)
{
    writer w = { out, room, 0, false };
    put(&w, OW_ASK);
    put(&w, request);
    put_text(&w, text, OW_MAX_TEXT);
    return finish(&w);
}

static reader begin(const uint8_t *message, size_t len, uint8_t kind)
{
    reader r = { message, message + len, false };
    if (get(&r) != kind) r.bad = true;
    return r;
}

static bool whole(const reader *r) { return !r->bad && r->at == r->end; }

bool ow_read_command(const uint8_t *message, size_t len, ow_command *out)
{
    reader r = begin(message, len, OW_COMMAND);
    out->request = get(&r);
    out->channel = get(&r);
    out->action = get(&r);
    out->amount = 0;
    if (out->action == OW_LEVEL || out->action == OW_PULSE) out->amount = (uint16_t)get_number(&r, 16);
    return whole(&r) && out->action <= OW_MAKE_INPUT;
}

bool ow_read_agent(const uint8_t *message, size_t len, uint8_t *state)
{
    reader r = begin(message, len, OW_AGENT);
    *state = get(&r);
    return whole(&r) && *state <= OW_AGENT_FAILED;
}

bool ow_read_cue(const uint8_t *message, size_t len, uint8_t *cue)
{
    reader r = begin(message, len, OW_CUE);
    *cue = get(&r);
    return whole(&r) && *cue <= 2;
}

bool ow_read_clock(const uint8_t *message, size_t len, ow_clock *out)
{
    reader r = begin(message, len, OW_CLOCK);
    out->asked_ms = (uint32_t)get_number(&r, 32);
    out->unix_ms = get_number(&r, 64);
    return whole(&r);
}

bool ow_read_answer(const uint8_t *message, size_t len, ow_answer *out)
{
    reader r = begin(message, len, OW_ANSWER);
    out->request = get(&r);
    uint8_t ok = get(&r);
    out->ok = ok == 1;
    get_text(&r, out->text, OW_MAX_TEXT);
    return whole(&r) && ok <= 1;
}

/* ---- Frames. ---- */

static uint32_t crc32(uint32_t crc, const uint8_t *bytes, size_t len)
{
    while (len--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return crc;
}

static uint16_t crc16(uint16_t crc, const uint8_t *bytes, size_t len)
{
    while (len--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) crc = (uint16_t)(crc >> 1 ^ (0x8408u & (0u - (crc & 1u))));
    }
    return crc;
}

static void little_endian(uint8_t *out, uint32_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) out[i] = (uint8_t)(value >> 8 * i);
}

static size_t checksum(ow_check check, uint32_t key, const uint8_t *body, size_t len, uint8_t out[4])
{
    uint8_t prefix[4];
    little_endian(prefix, key, 4);
    if (check == OW_CRC16) {
        little_endian(out, (uint16_t)~crc16(crc16(0xffff, prefix, 4), body, len), 2);
        return 2;
    }
    little_endian(out, ~crc32(crc32(0xffffffffu, prefix, 4), body, len), 4);
    return 4;
}

uint32_t ow_key(ow_identity from, ow_identity to)
{
    uint8_t names[12];
    little_endian(names, from.boot, 4);
    little_endian(names + 4, from.epoch, 2);
    little_endian(names + 6, to.boot, 4);
    little_endian(names + 10, to.epoch, 2);
    return ~crc32(0xffffffffu, names, sizeof names);
}

size_t ow_write_frame(uint8_t *out, size_t room, ow_check check, uint32_t key, ow_header header,
                      const uint8_t *payload, size_t len)
{
    uint8_t body[OW_MAX_BODY];
    if (len + 8 > sizeof body) return 0;
    body[0] = (uint8_t)(0x40 | OW_VERSION | (check == OW_CRC16 ? 0x10 : 0));
    body[1] = (uint8_t)(header.kind | (header.busy ? 4 : 0));
    body[2] = header.sequence;
    body[3] = header.next;
    if (len) memcpy(body + 4, payload, len);
    size_t end = len + 4;
    end += checksum(check, key, body, end, body + end);

    writer w = { out, room, 0, false };
    size_t code_at = 0;
    uint8_t code = 1;
    put(&w, 0);
    for (size_t i = 0; i < end; i++) {
        if (body[i]) {
            put(&w, body[i]);
            code++;
        }
        if (!body[i] || (code == 0xff && i + 1 < end)) {
            if (code_at < room) out[code_at] = code;
            code = 1;
            code_at = w.len;
            put(&w, 0);
        }
    }
    if (code_at < room) out[code_at] = code;
    put(&w, 0);
    return finish(&w);
}

bool ow_cut(ow_cutter *cutter, uint8_t byte)
{
    if (cutter->ended) {
        cutter->len = 0;
        cutter->overlong = cutter->ended = false;
    }
    if (byte) {
        if (cutter->len < sizeof cutter->data) cutter->data[cutter->len++] = byte;
        else cutter->overlong = true;
        return false;
    }
    cutter->ended = true;
    return cutter->len > 0 && !cutter->overlong;
}

/* Takes the stuffing out in place; 0 if it is wrong. */
static size_t unstuff(uint8_t *data, size_t len)
{
    size_t from = 0, to = 0;
    while (from < len) {
        uint8_t code = data[from++];
        if (code == 0 || (size_t)(code - 1) > len - from) return 0;
        for (uint8_t i = 1; i < code; i++) data[to++] = data[from++];
        if (code < 0xff && from < len) data[to++] = 0;
    }
    return to;
}

ow_result ow_read_frame(ow_cutter *cutter, ow_check check, uint32_t key, ow_header *header,
                        const uint8_t **payload, size_t *len)
{
    uint8_t *body = cutter->data;
    size_t end = unstuff(body, cutter->len);
    if (end == 0) return OW_BAD_STUFFING;
    ow_check theirs = body[0] & 0x10 ? OW_CRC16 : OW_CRC32;
    size_t size = theirs == OW_CRC16 ? 2 : 4;
    if (end < 4 + size || end > OW_MAX_BODY) return OW_BAD_LENGTH;
    end -= size;
    uint8_t version = body[0] & 0x0f;
    uint8_t kind = body[1] & (uint8_t)~4u;
    bool foreign = theirs != check || version != OW_VERSION;
    uint8_t expected[4];
    checksum(theirs, foreign || kind == OW_HELLO ? 0 : key, body, end, expected);
    if (memcmp(expected, body + end, size) != 0) return OW_BAD_CHECKSUM;
    if ((body[0] & 0xe0) != 0x40) return OW_OTHER_PROTOCOL;
    if (theirs != check) return OW_OTHER_CHECK;
    if (version != OW_VERSION) return OW_OTHER_VERSION;
    *header = (ow_header){ kind, (body[1] & 4) != 0, body[2], body[3] };
    *payload = body + 4;
    *len = end - 4;
    if (kind > OW_ACK || (kind == OW_ACK) != (*len == 0)) return OW_BAD_KIND;
    return OW_OK;
}

/* ---- The link. The same states and times as firmware-bridge/src/wire/link. ---- */

enum { GREET = 200, RESEND = 150, TRIES = 8, HEARTBEAT = 400, SILENCE = 1500, REFUSAL = 3000 };

static bool passed(uint32_t now, uint32_t at) { return (int32_t)(now - at) >= 0; }

static bool same(ow_identity a, ow_identity b) { return a.boot == b.boot && a.epoch == b.epoch; }

/* Whether a comes from an earlier session of an end that was heard since. */
static bool is_stale(ow_identity a, ow_identity known)
{
    uint16_t behind = (uint16_t)(known.epoch - a.epoch);
    return a.boot == known.boot && behind != 0 && behind <= 0x7fff;
}

void ow_link_init(ow_link *link, const ow_board *board, uint32_t boot, uint32_t now)
{
    memset(link, 0, sizeof *link);
    link->board = board;
    link->me.boot = boot;
    link->hello_at = now;
}

static void send_frame(ow_link *link, ow_header header, const uint8_t *payload, size_t len)
{
    uint8_t frame[OW_MAX_FRAME];
    uint32_t key = header.kind == OW_HELLO ? 0 : link->key_out;
    size_t size = ow_write_frame(frame, sizeof frame, link->board->check, key, header, payload, len);
    if (size) link->board->write(link->board->context, frame, size);
}

static void send_hello(ow_link *link)
{
    const ow_board *board = link->board;
    uint8_t payload[OW_MAX_BODY - 8];
    writer w = { payload, sizeof payload, 0, false };
    put(&w, OW_DEVICE);
    put_number(&w, link->me.boot);
    put_number(&w, link->me.epoch);
    put(&w, link->knows_peer);
    if (link->knows_peer) {
        put_number(&w, link->peer.boot);
        put_number(&w, link->peer.epoch);
    }
    put_number(&w, OW_SCHEMA);
    put_number(&w, board->kinds);
    put(&w, 1);
    put_text(&w, board->firmware, 24);
    for (int i = 0; i < 3; i++) put_number(&w, board->version[i]);
    size_t count = board->capability_count;
    if (count > OW_MAX_CAPABILITIES) count = OW_MAX_CAPABILITIES;
    put_number(&w, count);
    for (size_t i = 0; i < count; i++) {
        put(&w, board->capabilities[i].channel);
        put(&w, board->capabilities[i].function);
        put_text(&w, board->capabilities[i].name, OW_MAX_NAME);
    }
    send_frame(link, (ow_header){ OW_HELLO, false, 0, 0 }, payload, finish(&w));
}

static void tell(const ow_link *link, bool up)
{
    if (link->board->linked) link->board->linked(link->board->context, up);
}

static void go_up(ow_link *link, uint32_t now)
{
    link->up = link->knows_peer = link->receipt_due = true;
    link->hello_due = link->peer_busy = link->in_flight = link->sent = link->flown = false;
    link->refused = false;
    link->base = link->next = link->tries = 0;
    link->key_in = ow_key(link->peer, link->me);
    link->key_out = ow_key(link->me, link->peer);
    link->heard_at = link->spoke_at = now;
    tell(link, true);
}

static void go_down(ow_link *link, uint32_t now)
{
    link->me.epoch++;
    link->up = link->knows_peer = link->in_flight = false;
    link->hello_at = now;
    tell(link, false);
}

static void greeted(ow_link *link, const uint8_t *payload, size_t len, uint32_t now)
{
    reader r = { payload, payload + len, false };
    uint8_t role = get(&r);
    ow_identity id, echo = { 0, 0 };
    id.boot = (uint32_t)get_number(&r, 32);
    id.epoch = (uint16_t)get_number(&r, 16);
    bool has_echo = get(&r) == 1;
    if (has_echo) {
        echo.boot = (uint32_t)get_number(&r, 32);
        echo.epoch = (uint16_t)get_number(&r, 16);
    }
    (void)get_number(&r, 32);
    uint32_t kinds = (uint32_t)get_number(&r, 32);
    if (r.bad || role != OW_HOST) return;
    if (link->knows_peer && is_stale(id, link->peer)) return;
    bool knows_me = has_echo && same(echo, link->me);
    if (link->up && same(id, link->peer)) {
        if (knows_me) link->receipt_due = true;
        else link->hello_due = true;
        return;
    }
    if (link->up) go_down(link, now);
    link->peer = id;
    link->peer_kinds = kinds;
    link->knows_peer = true;
    if (has_echo && same(echo, link->me)) go_up(link, now);
    else link->hello_at = now;
}

static void acknowledged(ow_link *link, ow_header header, uint32_t now)
{
    link->heard_at = now;
    if (header.busy) link->tries = 0;
    else if (link->peer_busy) link->sent = false;
    link->peer_busy = header.busy;
    if (link->in_flight && link->flown && header.next == (uint8_t)(link->base + 1)) {
        link->base++;
        link->tries = 0;
        link->in_flight = link->sent = link->flown = false;
    }
}

void ow_link_receive(ow_link *link, uint8_t byte, uint32_t now)
{
    if (!ow_cut(&link->cutter, byte)) return;
    uint32_t key = link->up ? link->key_in : link->knows_peer ? ow_key(link->peer, link->me) : 0;
    ow_header header;
    const uint8_t *payload;
    size_t len;
    ow_result result = ow_read_frame(&link->cutter, link->board->check, key, &header, &payload, &len);
    if (result == OW_OTHER_CHECK || result == OW_OTHER_VERSION) {
        link->refused = !link->up;
        link->refused_at = now;
    }
    if (result != OW_OK) return;
    if (header.kind == OW_HELLO) {
        greeted(link, payload, len, now);
        return;
    }
    if (!link->up) {
        /* The other end is up already; a message in this frame comes again. */
        if (link->knows_peer) go_up(link, now);
        return;
    }
    acknowledged(link, header, now);
    if (header.kind != OW_DATA) return;
    link->receipt_due = true;
    if (link->busy || header.sequence != link->next) return;
    link->next++;
    link->board->message(link->board->context, payload, len);
}

void ow_link_poll(ow_link *link, uint32_t now)
{
    if (link->refused && passed(now, link->refused_at + REFUSAL)) link->refused = false;
    if (link->up && link->in_flight && link->flown && passed(now, link->resend_at)) {
        if (link->tries >= TRIES) {
            go_down(link, now);
        } else {
            link->tries++;
            link->sent = false;
            link->resend_at = now + RESEND;
        }
    }
    if (link->up && passed(now, link->heard_at + SILENCE)) go_down(link, now);
    if (!link->up) {
        if (passed(now, link->hello_at)) {
            link->hello_at = now + GREET;
            send_hello(link);
        }
        return;
    }
    if (link->hello_due) {
        link->hello_due = false;
        send_hello(link);
    }
    ow_header header = { OW_ACK, link->busy, 0, link->next };
    if (link->in_flight && !link->sent) {
        header.kind = OW_DATA;
        header.sequence = link->base;
        link->sent = link->flown = true;
        link->resend_at = now + RESEND;
    } else if (!link->receipt_due && !passed(now, link->spoke_at + HEARTBEAT)) {
        return;
    }
    link->receipt_due = false;
    link->spoke_at = now;
    send_frame(link, header, link->message, header.kind == OW_DATA ? link->message_len : 0);
}

void ow_link_set_busy(ow_link *link, bool busy)
{
    if (link->busy && !busy) link->receipt_due = true;
    link->busy = busy;
}

bool ow_link_has_room(const ow_link *link) { return link->up && !link->in_flight; }

bool ow_link_send(ow_link *link, const uint8_t *message, size_t len)
{
    if (!ow_link_has_room(link) || len == 0 || len > sizeof link->message) return false;
    if (message[0] > 31 || !(link->peer_kinds >> message[0] & 1)) return false;
    memcpy(link->message, message, len);
    link->message_len = len;
    link->in_flight = true;
    link->sent = link->flown = false;
    return true;
}
