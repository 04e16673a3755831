/* A guest of two kilobytes for tests of the VMM: no Linux, no modules, up in a tenth of a second even in software
 * emulation. It answers on the agent's virtio-serial port by echoing lines; four lines end it:
 * OFF and REBOOT as ACPI does, PANIC with a kernel's last words on the serial port, FAULT by a triple fault.
 *
 * Started by the PVH protocol (32 bits, flat, no paging). Devices as on QEMU's microvm: include/hw/i386/microvm.h.
 * It polls and takes no interrupts. Virtio 1.2: 4.2 (mmio), 2.7 (split queues), 5.3 (console).
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define VIRTIO_BASE 0xfeb00000u
#define VIRTIO_SLOTS 24
#define VIRTIO_SIZE 512
#define GED_REGISTERS 0xfea00200u
#define QUEUE_LENGTH 8
#define BUFFER 4096
#define BARRIER() __asm__ volatile("" ::: "memory")

enum { CONTROL_IN = 2, CONTROL_OUT = 3, DATA_IN = 4, DATA_OUT = 5, QUEUES = 6 };
enum { DEVICE_READY = 0, PORT_ADD = 1, PORT_READY = 3, PORT_OPEN = 6 };

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct queue {
    struct descriptor descriptors[QUEUE_LENGTH] __attribute__((aligned(16)));
    struct { u16 flags, index, ring[QUEUE_LENGTH]; } available __attribute__((aligned(16)));
    volatile struct { u16 flags, index; struct { u32 id, length; } ring[QUEUE_LENGTH]; } used __attribute__((aligned(16)));
    u8 buffers[QUEUE_LENGTH][BUFFER];
    u16 seen;
};
struct control { u32 port; u16 event, value; };

static struct queue queues[QUEUES];
static volatile u32 *device;
static u8 line[BUFFER];
static u32 line_length;

static void out(u16 port, u8 value) { __asm__ volatile("outb %0,%1" ::"a"(value), "Nd"(port)); }
static void say(const char *text) { while (*text) out(0x3f8, (u8)*text++); }
static void copy(void *to, const void *from, u32 count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}
static void set_register(u32 offset, u32 value) { device[offset / 4] = value; }

static void open_queue(int number, int incoming)
{
    struct queue *queue = &queues[number];
    for (u32 i = 0; i < QUEUE_LENGTH; i++) {
        queue->descriptors[i].address = (u32)queue->buffers[i];
        queue->descriptors[i].length = BUFFER;
        queue->descriptors[i].flags = incoming ? 2 : 0;
        queue->available.ring[i] = (u16)i;
    }
    queue->available.flags = 1;
    queue->available.index = incoming ? QUEUE_LENGTH : 0;
    set_register(0x30, (u32)number);
    set_register(0x38, QUEUE_LENGTH);
    set_register(0x80, (u32)queue->descriptors);
    set_register(0x84, 0);
    set_register(0x90, (u32)&queue->available);
    set_register(0x94, 0);
    set_register(0xa0, (u32)&queue->used);
    set_register(0xa4, 0);
    set_register(0x44, 1);
}

static void send(int number, const void *data, u32 length)
{
    struct queue *queue = &queues[number];
    u16 slot = queue->available.index % QUEUE_LENGTH;
    while ((u16)(queue->available.index - queue->used.index) >= QUEUE_LENGTH)
        BARRIER();
    copy(queue->buffers[slot], data, length);
    queue->descriptors[slot].length = length;
    queue->available.ring[slot] = slot;
    BARRIER();
    queue->available.index++;
    BARRIER();
    set_register(0x50, (u32)number);
}

static void tell(u32 port, u16 event, u16 value)
{
    struct control message = {port, event, value};
    send(CONTROL_OUT, &message, sizeof message);
}

static void power(u32 offset, u8 value)
{
    ((volatile u8 *)GED_REGISTERS)[offset] = value;
    for (;;)
        __asm__ volatile("hlt");
}

static int is(const char *word)
{
    u32 i = 0;
    for (; word[i]; i++)
        if (line[i] != (u8)word[i])
            return 0;
    return i + 1 == line_length;
}

static void answer(void)
{
    if (is("OFF"))
        power(0, 5 << 2 | 1 << 5);
    if (is("REBOOT"))
        power(2, 0x42);
    if (is("PANIC")) {
        say("[    0.1] Kernel panic - not syncing: mini guest was told to\n");
        power(2, 0x42);
    }
    if (is("FAULT"))
        __asm__ volatile("push $0; push $0; lidt (%esp); int3");
    send(DATA_OUT, line, line_length);
}

static void take(const u8 *data, u32 length)
{
    for (u32 i = 0; i < length; i++) {
        line[line_length++] = data[i];
        if (data[i] == '\n' || line_length == BUFFER) {
            answer();
            line_length = 0;
        }
    }
}

static void control(const struct control *message)
{
    if (message->event == PORT_ADD) {
        tell(message->port, PORT_READY, 1);
        tell(message->port, PORT_OPEN, 1);
        say("MINI ready\n");
    }
}

static void poll(int number)
{
    struct queue *queue = &queues[number];
    while (queue->seen != queue->used.index) {
        u32 id = queue->used.ring[queue->seen % QUEUE_LENGTH].id;
        u32 length = queue->used.ring[queue->seen % QUEUE_LENGTH].length;
        queue->seen++;
        if (number == CONTROL_IN)
            control((struct control *)queue->buffers[id]);
        else
            take(queue->buffers[id], length);
        queue->available.ring[queue->available.index % QUEUE_LENGTH] = (u16)id;
        BARRIER();
        queue->available.index++;
        BARRIER();
        set_register(0x50, (u32)number);
    }
}

static int find_console(void)
{
    for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++) {
        device = (volatile u32 *)(VIRTIO_BASE + slot * VIRTIO_SIZE);
        if (device[0] == 0x74726976 && device[2] == 3)
            return 1;
    }
    return 0;
}

void start_guest(void)
{
    say("MINI boot\n");
    if (!find_console()) {
        say("MINI without console\n");
        power(0, 5 << 2 | 1 << 5);
    }
    set_register(0x70, 0);
    set_register(0x70, 1 | 2);
    set_register(0x24, 0);
    set_register(0x20, 1 << 1); /* several ports */
    set_register(0x24, 1);
    set_register(0x20, 1); /* virtio 1 */
    set_register(0x70, 1 | 2 | 8);
    for (int number = 0; number < QUEUES; number++)
        open_queue(number, number % 2 == 0);
    set_register(0x70, 1 | 2 | 4 | 8);
    tell(0xffffffff, DEVICE_READY, 1);
    for (;;) {
        poll(CONTROL_IN);
        poll(DATA_IN);
        __asm__ volatile("pause");
    }
}
