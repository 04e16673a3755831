/* A guest of some kilobytes for tests of Firecracker: no Linux, up in milliseconds, and it runs on KVMs that run
 * nothing else. It echoes lines on vsock port 1024; some lines do more:
 *
 *   OFF REBOOT   the last words of a Linux that powers off or restarts, then a reset, as Firecracker wants it
 *   HALT         the last words of a Linux that cannot power off, and no more
 *   PANIC FAULT  a kernel's last words and a reset; a triple fault
 *   READ k       answers with the first line of disk k (a digit)
 *   WRITE k TEXT makes TEXT that line
 *   SHOUT        writes twenty kibibytes to the console
 *
 * As soon as it listens, it knocks: it connects to the host's port 1024 and leaves at once. With `knock=0` among the
 * kernel's arguments it does not, with `deaf=1` it refuses connections. With `ip=A.B.C.D` it answers ARP and ping.
 *
 * A KVM without hardware below interprets it at about a microsecond an instruction: data is moved in words, never byte
 * by byte. It polls and takes no interrupts. Virtio 1.2: 4.2 (mmio), 2.7 (split queues), 5.1 (net), 5.2 (block),
 * 5.10 (socket). Firecracker puts device n at 0xd0000000 + n * 4096.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define VIRTIO_BASE 0xd0000000ull
#define VIRTIO_SIZE 4096
#define VIRTIO_SLOTS 16
#define QUEUE_LENGTH 16
#define BUFFER 4096
#define NET_BUFFERS 4
#define NET_BUFFER 65568 /* what Firecracker wants of one receive buffer, since the tap may do segmentation */
#define RING 65536
#define LINE 256 /* what comes in one piece up to this length and ends with a newline may be a command */
#define PORT 1024
#define HOST 2
#define DISKS 4
#define BARRIER() __asm__ volatile("" ::: "memory")

enum { NET = 1, BLOCK = 2, SOCKET = 19 };
enum { REQUEST = 1, RESPONSE, RESET, SHUTDOWN, DATA, CREDIT_UPDATE, CREDIT_REQUEST };

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct queue {
    struct descriptor descriptors[QUEUE_LENGTH] __attribute__((aligned(16)));
    struct { u16 flags, index, ring[QUEUE_LENGTH]; } available __attribute__((aligned(16)));
    volatile struct { u16 flags, index; struct { u32 id, length; } ring[QUEUE_LENGTH]; } used __attribute__((aligned(16)));
    volatile u32 *device;
    u32 number;
    u16 seen;
};
struct packet {
    u64 from, to;
    u32 from_port, to_port, length;
    u16 type, operation;
    u32 flags, room, forwarded;
} __attribute__((packed));
struct disk { struct queue queue; struct { u32 type, zero; u64 sector; } head; u8 sector[512]; u8 status; };

static struct queue socket_in, socket_out, socket_events, net_in, net_out;
static u8 socket_buffers[QUEUE_LENGTH][BUFFER], reply_buffers[QUEUE_LENGTH][BUFFER + sizeof(struct packet)];
static u8 event_buffers[QUEUE_LENGTH][64];
static u8 net_buffers[NET_BUFFERS][NET_BUFFER], frame_buffers[QUEUE_LENGTH][2048];
static struct disk disks[DISKS];
static u32 disk_count;

static u32 address, peer_port, is_connected, is_deaf;
static u32 credit, sent, forwarded, peer_forwarded;
static u8 ring[RING], line[LINE];
static u32 ring_in, ring_out, line_length;
static u8 mac[6];
static u32 ip;

static void out(u16 port, u8 value) { __asm__ volatile("outb %0,%1" ::"a"(value), "Nd"(port)); }
static void say(const char *text) { while (*text) out(0x3f8, (u8)*text++); }
static void copy(void *to, const void *from, u32 count)
{
    u64 words = count / 8, bytes = count % 8;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words)::"memory");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
}
static void zero(void *to, u64 count) { __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0) : "memory"); }

static void reset(const char *words)
{
    say(words);
    for (;;)
        out(0x64, 0xfe);
}

/* Virtio */

static void set_register(volatile u32 *device, u32 offset, u32 value) { device[offset / 4] = value; }

static void negotiate(volatile u32 *device, u32 features)
{
    set_register(device, 0x70, 0); /* Firecracker takes the status one step at a time only */
    set_register(device, 0x70, 1);
    set_register(device, 0x70, 1 | 2);
    set_register(device, 0x24, 0);
    set_register(device, 0x20, features);
    set_register(device, 0x24, 1);
    set_register(device, 0x20, 1); /* virtio 1 */
    set_register(device, 0x70, 1 | 2 | 8);
}

static void open_queue(struct queue *queue, volatile u32 *device, u32 number)
{
    queue->device = device;
    queue->number = number;
    queue->available.flags = 1; /* no interrupts */
    set_register(device, 0x30, number);
    set_register(device, 0x38, QUEUE_LENGTH);
    set_register(device, 0x80, (u32)(u64)queue->descriptors);
    set_register(device, 0x84, 0);
    set_register(device, 0x90, (u32)(u64)&queue->available);
    set_register(device, 0x94, 0);
    set_register(device, 0xa0, (u32)(u64)&queue->used);
    set_register(device, 0xa4, 0);
    set_register(device, 0x44, 1);
}

static void offer(struct queue *queue, u32 id)
{
    queue->available.ring[queue->available.index % QUEUE_LENGTH] = (u16)id;
    BARRIER();
    queue->available.index++;
    BARRIER();
}

static void notify(struct queue *queue) { set_register(queue->device, 0x50, queue->number); }

static void fill(struct queue *queue, void *buffers, u32 count, u32 size)
{
    for (u32 i = 0; i < count; i++) {
        queue->descriptors[i] = (struct descriptor){(u64)buffers + i * size, size, 2, 0};
        offer(queue, i);
    }
}

static u32 free_slots(struct queue *queue)
{
    return QUEUE_LENGTH - (u16)(queue->available.index - queue->used.index);
}

static u32 wait_slot(struct queue *queue)
{
    while (free_slots(queue) == 0)
        BARRIER();
    return queue->available.index % QUEUE_LENGTH;
}

static void send(struct queue *queue, u32 slot, void *data, u32 length)
{
    queue->descriptors[slot] = (struct descriptor){(u64)data, length, 0, 0};
    offer(queue, slot);
    notify(queue);
}

/* Disks */

static u8 transfer(struct disk *disk, u32 type)
{
    struct descriptor *chain = disk->queue.descriptors;
    disk->head.type = type;
    chain[0] = (struct descriptor){(u64)&disk->head, sizeof disk->head, 1, 1};
    chain[1] = (struct descriptor){(u64)disk->sector, sizeof disk->sector, type ? 1 : 3, 2};
    chain[2] = (struct descriptor){(u64)&disk->status, 1, 2, 0};
    offer(&disk->queue, 0);
    notify(&disk->queue);
    while (disk->queue.used.index != disk->queue.available.index)
        BARRIER();
    return disk->status;
}

/* Sockets: one connection, the newest */

static void tell(u32 to_port, u16 operation, const void *data, u32 length)
{
    u32 slot = wait_slot(&socket_out);
    struct packet *packet = (struct packet *)reply_buffers[slot];
    *packet = (struct packet){address, HOST, PORT, to_port, length, 1, operation, 0, RING, forwarded};
    if (operation == SHUTDOWN)
        packet->flags = 3;
    copy(packet + 1, data, length);
    send(&socket_out, slot, packet, sizeof *packet + length);
}

static void answer(const void *data, u32 length)
{
    tell(peer_port, DATA, data, length);
    sent += length;
}

static int begins(const char *word)
{
    u32 i = 0;
    for (; word[i]; i++)
        if (line[i] != (u8)word[i])
            return 0;
    return i < line_length;
}

static void shout(void)
{
    for (u32 i = 0; i < 320; i++)
        say("sixty-three characters and the end of their line make sixty-four\n");
}

static int use_disk(u32 at, u32 type)
{
    struct disk *disk = &disks[line[at] - '0'];
    u32 length = 0;
    if (line[at] < '0' || line[at] - '0' >= (int)disk_count)
        return 0;
    if (type) {
        copy(disk->sector, line + at + 2, line_length - at - 2);
        length = line_length;
    }
    if (transfer(disk, type)) {
        answer("failed\n", 7);
        return 1;
    }
    while (!type && length < 511 && disk->sector[length] != '\n')
        length++;
    if (type)
        answer(line, line_length);
    else {
        disk->sector[length] = '\n';
        answer(disk->sector, length + 1);
    }
    return 1;
}

static void obey(void)
{
    if (begins("OFF") && line_length == 4)
        reset("[    0.1] reboot: Power down\n");
    if (begins("REBOOT") && line_length == 7)
        reset("[    0.1] reboot: Restarting system\n");
    if (begins("HALT")) {
        say("[    0.1] reboot: System halted\n");
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    if (begins("PANIC"))
        reset("[    0.1] Kernel panic - not syncing: mini guest was told to\n");
    if (begins("FAULT"))
        __asm__ volatile("push $0; push $0; lidt (%rsp); int3");
    if (begins("SHOUT"))
        shout();
    if (begins("READ ") && use_disk(5, 0))
        return;
    if (begins("WRITE ") && use_disk(6, 1))
        return;
    answer(line, line_length);
}

/* Empties the ring as far as the host has room, and the queue: Firecracker takes nothing out of that one while it waits
 * for room to give us something. */
static void echo(void)
{
    while (is_connected && ring_out != ring_in && free_slots(&socket_out) > QUEUE_LENGTH / 2) {
        u32 length = ring_in - ring_out, at = ring_out % RING, room = credit - (sent - peer_forwarded);
        length = length < BUFFER ? length : BUFFER;
        length = length < RING - at ? length : RING - at;
        if (room < length)
            return;
        ring_out += length;
        forwarded += length;
        answer(ring + at, length); /* and the news that there is room again */
    }
}

static void take_data(const u8 *data, u32 length)
{
    if (length < LINE && ring_in == ring_out && data[length - 1] == '\n') {
        copy(line, data, length);
        line_length = length;
        forwarded += length;
        obey();
        return;
    }
    u32 at = ring_in % RING, straight = length < RING - at ? length : RING - at;
    copy(ring + at, data, straight);
    copy(ring, data + straight, length - straight);
    ring_in += length;
}

static void connect(const struct packet *packet)
{
    if (packet->to_port != PORT || is_deaf) {
        tell(packet->from_port, RESET, 0, 0);
        return;
    }
    if (is_connected)
        tell(peer_port, RESET, 0, 0);
    is_connected = 1;
    peer_port = packet->from_port;
    sent = forwarded = ring_in = ring_out = 0;
    tell(peer_port, RESPONSE, 0, 0);
}

static void take(const struct packet *packet)
{
    if (packet->operation == REQUEST) {
        connect(packet);
    } else if (packet->operation == RESPONSE) { /* the host has heard the knock */
        tell(packet->from_port, RESET, 0, 0);
        return;
    } else if (!is_connected || packet->from_port != peer_port) {
        if (packet->operation != RESET)
            tell(packet->from_port, RESET, 0, 0);
        return;
    }
    credit = packet->room;
    peer_forwarded = packet->forwarded;
    if (packet->operation == DATA) {
        take_data((const u8 *)(packet + 1), packet->length);
    } else if (packet->operation == CREDIT_REQUEST) {
        tell(peer_port, CREDIT_UPDATE, 0, 0);
    } else if (packet->operation == SHUTDOWN) {
        tell(peer_port, RESET, 0, 0);
        is_connected = 0;
    } else if (packet->operation == RESET) {
        is_connected = 0;
    }
}

static void poll_socket(void)
{
    u32 heard = 0;
    while (socket_in.seen != socket_in.used.index) {
        u32 id = socket_in.used.ring[socket_in.seen++ % QUEUE_LENGTH].id;
        take((struct packet *)socket_buffers[id]);
        offer(&socket_in, id);
        heard = 1;
    }
    if (heard)
        notify(&socket_in);
    echo();
    while (socket_events.seen != socket_events.used.index) { /* restored from a snapshot: connections are gone */
        offer(&socket_events, socket_events.used.ring[socket_events.seen++ % QUEUE_LENGTH].id);
        notify(&socket_events);
        is_connected = 0;
    }
}

/* ARP and ICMP echo for one address */

static u16 sum(const u8 *data, u32 length)
{
    u32 total = 0;
    for (u32 i = 0; i < length; i++)
        total += i % 2 ? data[i] : (u32)data[i] << 8;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (u16)~total;
}

static int is_for_us(const u8 *at)
{
    const u8 *own = (const u8 *)&ip;
    return at[0] == own[0] && at[1] == own[1] && at[2] == own[2] && at[3] == own[3];
}

static void take_frame(const u8 *data, u32 length)
{
    const u8 *frame = data + 12;
    u32 slot = wait_slot(&net_out);
    u8 *reply = frame_buffers[slot] + 12;
    int is_arp = frame[12] == 8 && frame[13] == 6 && frame[21] == 1 && is_for_us(frame + 38);
    int is_ping = frame[12] == 8 && frame[13] == 0 && frame[23] == 1 && frame[34] == 8 && is_for_us(frame + 30);
    if (!(is_arp || is_ping) || length > 2000)
        return;
    zero(reply - 12, 12);
    copy(reply, frame, length - 12);
    copy(reply, frame + 6, 6);
    copy(reply + 6, mac, 6);
    if (is_arp) {
        reply[21] = 2;
        copy(reply + 22, mac, 6);
        copy(reply + 28, &ip, 4);
        copy(reply + 32, frame + 22, 10);
    } else {
        u32 size = (u32)(frame[16] << 8 | frame[17]) - 20;
        copy(reply + 26, frame + 30, 4);
        copy(reply + 30, frame + 26, 4);
        reply[34] = reply[36] = reply[37] = 0;
        u16 check = sum(reply + 34, size);
        reply[36] = (u8)(check >> 8);
        reply[37] = (u8)check;
    }
    send(&net_out, slot, reply - 12, length);
}

static void poll_net(void)
{
    while (net_in.seen != net_in.used.index) {
        u32 id = net_in.used.ring[net_in.seen % QUEUE_LENGTH].id;
        u32 length = net_in.used.ring[net_in.seen++ % QUEUE_LENGTH].length;
        take_frame(net_buffers[id], length);
        offer(&net_in, id);
        notify(&net_in);
    }
}

/* Beginning */

static const char *find_argument(const char *arguments, const char *name)
{
    for (; *arguments; arguments++) {
        u32 i = 0;
        while (name[i] && arguments[i] == name[i])
            i++;
        if (!name[i])
            return arguments + i;
    }
    return "";
}

static void read_address(const char *text)
{
    u8 *bytes = (u8 *)&ip;
    for (u32 part = 0; *text && part < 4; text++) {
        if (*text == '.')
            part++;
        else if (*text >= '0' && *text <= '9')
            bytes[part] = (u8)(bytes[part] * 10 + *text - '0');
        else
            return;
    }
}

static void open_socket(volatile u32 *device)
{
    negotiate(device, 0);
    address = device[0x100 / 4];
    open_queue(&socket_in, device, 0);
    open_queue(&socket_out, device, 1);
    open_queue(&socket_events, device, 2);
    fill(&socket_in, socket_buffers, QUEUE_LENGTH, BUFFER);
    fill(&socket_events, event_buffers, QUEUE_LENGTH, sizeof event_buffers[0]);
    set_register(device, 0x70, 1 | 2 | 4 | 8);
    notify(&socket_in);
    notify(&socket_events);
}

static void open_net(volatile u32 *device)
{
    negotiate(device, 1 << 15); /* one receive buffer may hold several packets: virtio 5.1.6.3 */
    u32 low = device[0x100 / 4], high = device[0x104 / 4];
    copy(mac, &low, 4);
    copy(mac + 4, &high, 2);
    open_queue(&net_in, device, 0);
    open_queue(&net_out, device, 1);
    fill(&net_in, net_buffers, NET_BUFFERS, NET_BUFFER);
    set_register(device, 0x70, 1 | 2 | 4 | 8);
    notify(&net_in);
}

static void open_disk(volatile u32 *device)
{
    negotiate(device, 0);
    open_queue(&disks[disk_count++].queue, device, 0);
    set_register(device, 0x70, 1 | 2 | 4 | 8);
}

/* Adds the two mebibytes of the devices' registers to the mapping that Firecracker has made. */
static void map_devices(void)
{
    static u64 directory[512] __attribute__((aligned(4096)));
    u64 root;
    __asm__ volatile("mov %%cr3, %0" : "=r"(root));
    u64 *upper = (u64 *)(*(u64 *)(root & ~0xfffull) & ~0xfffull);
    directory[VIRTIO_BASE >> 21 & 511] = VIRTIO_BASE | 0x83; /* present, writable, large */
    upper[VIRTIO_BASE >> 30] = (u64)directory | 3;
    __asm__ volatile("mov %0, %%cr3" ::"r"(root) : "memory");
}

void start_guest(const u8 *boot_parameters)
{
    const char *arguments = (const char *)(u64) * (const u32 *)(boot_parameters + 0x228);
    say("MINI boot\n");
    map_devices();
    read_address(find_argument(arguments, " ip="));
    is_deaf = *find_argument(arguments, " deaf=") == '1';
    for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++) {
        volatile u32 *device = (volatile u32 *)(VIRTIO_BASE + slot * VIRTIO_SIZE);
        if (device[0] != 0x74726976)
            break;
        if (device[2] == SOCKET)
            open_socket(device);
        if (device[2] == NET)
            open_net(device);
        if (device[2] == BLOCK && disk_count < DISKS)
            open_disk(device);
    }
    say("MINI ready\n");
    if (socket_in.device && *find_argument(arguments, " knock=") != '0')
        tell(PORT, REQUEST, 0, 0);
    for (;;) {
        if (socket_in.device)
            poll_socket();
        if (net_in.device)
            poll_net();
        __asm__ volatile("pause");
    }
}
