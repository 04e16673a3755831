// Packing and unpacking real trees, archives made to escape, and archives mutated at random. argv[1]: an empty directory.
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "tar.h"
#include "tree.h"

enum { ARCHIVE_MAX = 1 << 20, MUTATIONS = 3000 };

static uint8_t archive[ARCHIVE_MAX];
static size_t archive_size;
static struct failure failure;
static struct tree_totals totals;
static bool keep_owners;

static int fresh_directory(const char *name) {
    char command[128];
    snprintf(command, sizeof command, "chmod -R u+rwx %s 2>/dev/null; rm -rf %s && mkdir %s", name, name, name);
    CHECK(system(command) == 0);
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static int unpack(int directory) {
    int fd = memfd_create("archive", 0);
    CHECK(write(fd, archive, archive_size) == (ssize_t)archive_size);
    lseek(fd, 0, SEEK_SET);
    failure = (struct failure){0};
    int result = tree_unpack(fd, directory, &(struct tree_owner){.keep = keep_owners}, &totals, &failure);
    close(fd);
    CHECK((result == 0) == (failure.code == 0));
    return result;
}

static void put_number(char *field, size_t size, unsigned long value) { snprintf(field, size, "%0*lo", (int)size - 1, value); }

static void add(char type, const char *name, const char *target, const char *content) {
    struct tar_header header = {.type = type, .magic = "ustar", .version = "00"};
    size_t size = content ? strlen(content) : 0;
    unsigned sum = 0;
    strncpy(header.name, name, sizeof header.name);
    strncpy(header.target, target ? target : "", sizeof header.target);
    put_number(header.mode, sizeof header.mode, 07755);
    put_number(header.uid, sizeof header.uid, 0);
    put_number(header.gid, sizeof header.gid, 0);
    put_number(header.size, sizeof header.size, size);
    put_number(header.mtime, sizeof header.mtime, 1000);
    memset(header.checksum, ' ', sizeof header.checksum);
    for (size_t i = 0; i < sizeof header; i++)
        sum += ((unsigned char *)&header)[i];
    snprintf(header.checksum, sizeof header.checksum, "%06o", sum);
    memcpy(archive + archive_size, &header, sizeof header);
    archive_size += sizeof header;
    if (size)
        memcpy(archive + archive_size, content, size);
    archive_size += size + -size % TAR_BLOCK;
}

static void start(void) {
    memset(archive, 0, sizeof archive);
    archive_size = 0;
}

static void finish(void) { archive_size += 1024; }

static uint32_t unpack_fresh(void) {
    int directory = fresh_directory("into");
    finish();
    unpack(directory);
    close(directory);
    CHECK(access("evil", F_OK) < 0);
    return failure.code;
}

static void a_tree_survives_the_round_trip(void) {
    close(fresh_directory("from"));
    CHECK(system("cd from && mkdir -p a/b/$(printf 'c%.0s' $(seq 120)) && echo text > a/file && ln a/file a/again &&"
                 "ln -s ../outside a/link && ln -s $(printf 'd%.0s' $(seq 150)) long && mkfifo fifo &&"
                 "head -c 300000 /dev/urandom > big && : > a/b/empty && chmod 0751 a && chmod 4711 a/file &&"
                 "touch -d @12345 a a/file a/b") == 0);
    FILE *file = tmpfile();
    CHECK(tree_pack(fileno(file), "from", NULL, 0, &failure) == 0);
    lseek(fileno(file), 0, SEEK_SET);
    int directory = fresh_directory("into");
    CHECK(tree_unpack(fileno(file), directory, &(struct tree_owner){.keep = true}, &totals, &failure) == 0);
    CHECK(totals.entries == 10 && totals.bytes == 300000 + 5);
    close(directory);
    fclose(file);
    CHECK(system("list() { (cd $1 && find . -mindepth 1 ! -type d -printf '%p %y %m %T@ %n %l %s\\n' -o -mindepth 1 -printf "
                 "'%p %y %m %Ts\\n' | sed 's/\\.[0-9]* / /' | sort); }; list from > one; list into > two; cmp one two && cmp from/big into/big") == 0);
}

static void sparse_files_keep_their_holes(void) {
    close(fresh_directory("holes"));
    CHECK(system("cd holes && truncate -s 64M head middle tail none && printf data | dd of=head conv=notrunc status=none &&"
                 "printf data | dd of=middle bs=1M seek=30 conv=notrunc status=none && truncate -s 8M tail &&"
                 "printf data >> tail && mkdir $(printf 'n%.0s' $(seq 200)) && cp --sparse=always middle n*/") == 0);
    FILE *file = tmpfile();
    struct stat status;
    CHECK(tree_pack(fileno(file), "holes", NULL, 0, &failure) == 0);
    CHECK(fstat(fileno(file), &status) == 0 && status.st_size < 1 << 20);
    lseek(fileno(file), 0, SEEK_SET);
    int directory = fresh_directory("into");
    CHECK(tree_unpack(fileno(file), directory, &(struct tree_owner){0}, &totals, &failure) == 0);
    CHECK(totals.entries == 6 && totals.bytes == 4 * (64ull << 20) + (8 << 20) + 4);
    close(directory);
    CHECK(system("diff -r holes into && test $(du -s into | cut -f1) -lt 1024") == 0);
    // And with the system's tar, both ways
    CHECK(fcntl(fileno(file), F_SETFD, 0) == 0 && lseek(fileno(file), 0, SEEK_SET) == 0);
    close(fresh_directory("into"));
    char command[128];
    snprintf(command, sizeof command, "tar -xC into <&%d && diff -r holes into && test $(du -s into | cut -f1) -lt 1024", fileno(file));
    CHECK(system(command) == 0);
    fclose(file);
    CHECK(system("tar --format=pax -S -cC holes . > theirs.tar") == 0);
    int theirs = open("theirs.tar", O_RDONLY);
    directory = fresh_directory("into");
    CHECK(tree_unpack(theirs, directory, &(struct tree_owner){0}, &totals, &failure) == 0);
    CHECK(system("diff -r holes into && test $(du -s into | cut -f1) -lt 1024") == 0);
    close(directory);
    close(theirs);
    CHECK(system("rm -r theirs.tar holes") == 0);
}

static void named_entries_stay_below_the_directory(void) {
    FILE *file = tmpfile();
    const char *good[] = {"a/b", "long"}, *bad[] = {"../from"}, *absolute[] = {"/etc"}, *through[] = {"a/link/x"};
    CHECK(tree_pack(fileno(file), "from", good, 2, &failure) == 0);
    CHECK(tree_pack(fileno(file), "from", bad, 1, &failure) < 0 && failure.code == FAILURE_UNSAFE_PATH);
    CHECK(tree_pack(fileno(file), "from", absolute, 1, &failure) < 0 && failure.code == FAILURE_UNSAFE_PATH);
    CHECK(tree_pack(fileno(file), "from", through, 1, &failure) < 0);
    fclose(file);
}

static void archives_that_climb_are_refused(void) {
    static const char *const names[] = {"../evil", "a/../../evil", "/tmp/evil", "..", "a/..", "./../evil", "a//../../evil"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        start();
        add(TAR_FILE, names[i], NULL, "x");
        CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
    }
}

static void entries_through_links_are_refused(void) {
    const char types[] = {TAR_FILE, TAR_DIRECTORY, TAR_SYMLINK, TAR_FIFO};
    for (size_t i = 0; i < sizeof types; i++) {
        start();
        add(TAR_SYMLINK, "link", "..", NULL);
        add(types[i], "link/evil", "x", NULL);
        CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
    }
    start();
    add(TAR_SYMLINK, "link", "..", NULL);
    add(TAR_DIRECTORY, "link/", NULL, NULL);
    CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
}

static void a_file_replaces_a_link_and_is_not_written_through_it(void) {
    start();
    add(TAR_SYMLINK, "link", "../evil", NULL);
    add(TAR_FILE, "link", NULL, "x");
    CHECK(unpack_fresh() == 0);
    struct stat status;
    CHECK(lstat("into/link", &status) == 0 && S_ISREG(status.st_mode));
}

static void hard_links_obey_the_same_rules(void) {
    CHECK(system("echo secret > secret") == 0);
    start();
    add(TAR_HARD_LINK, "stolen", "../secret", NULL);
    CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
    start();
    add(TAR_SYMLINK, "up", "..", NULL);
    add(TAR_HARD_LINK, "stolen", "up/secret", NULL);
    CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
    start();
    add(TAR_FILE, "d/one", NULL, "x");
    add(TAR_HARD_LINK, "two", "d/one", NULL);
    CHECK(unpack_fresh() == 0);
}

static void pax_names_obey_the_same_rules(void) {
    start();
    add(TAR_PAX, "pax", NULL, "16 path=../evil\n");
    add(TAR_FILE, "innocent", NULL, "x");
    CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
    start();
    add(TAR_GNU_LONG_NAME, "long", NULL, "../evil");
    add(TAR_FILE, "innocent", NULL, "x");
    CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
    static const char *const records[] = {"16 path=x", "999 path=x\n", "x path=y\n", "3 =\n", "12 size=abc\n", "0 path=x\n", "22 GNU.sparse.major=1\n", "13 size=-512\n"};
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        start();
        add(TAR_PAX, "pax", NULL, records[i]);
        add(TAR_FILE, "innocent", NULL, "x");
        CHECK(unpack_fresh() == FAILURE_BAD_REQUEST);
    }
}

static void a_map_that_does_not_fit_its_file_is_refused(void) {
    const char *version = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n";
    const struct {
        const char *realsize, *map;
        bool fine;
    } cases[] = {
        {"27 GNU.sparse.realsize=100\n", "1\n96\n4\n", true},
        {"27 GNU.sparse.realsize=100\n", "2\n90\n4\n100\n0\n", true},
        {"27 GNU.sparse.realsize=100\n", "1\n97\n4\n", false},                  // past the end
        {"27 GNU.sparse.realsize=100\n", "1\n999999999999999999\n4\n", false}, // far past it
        {"27 GNU.sparse.realsize=100\n", "2\n50\n2\n40\n2\n", false},           // out of order
        {"27 GNU.sparse.realsize=100\n", "1\n0\n5\n", false},                   // more than there is
        {"27 GNU.sparse.realsize=100\n", "1\n0\n3\n", false},                   // less
        {"27 GNU.sparse.realsize=100\n", "70000\n", false},                     // too many pieces
        {"27 GNU.sparse.realsize=100\n", "9999999999999999999\n", false},
        {"27 GNU.sparse.realsize=100\n", "-1\n", false},
        {"27 GNU.sparse.realsize=100\n", "1\n\n", false},
        {"27 GNU.sparse.realsize=100\n", "2\n0\n4\n", false}, // no end
        {"26 GNU.sparse.realsize=-1\n", "1\n0\n4\n", false},
        {"", "1\n0\n4\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char records[256], content[TAR_BLOCK + 5];
        snprintf(records, sizeof records, "%s24 GNU.sparse.name=file\n%s", version, cases[i].realsize);
        start();
        add(TAR_PAX, "pax", NULL, records);
        memset(content, '\n', sizeof content); // behind the map, where nobody looks
        memcpy(content, cases[i].map, strlen(cases[i].map));
        if (!cases[i].fine)
            memset(content + strlen(cases[i].map), '0', TAR_BLOCK - strlen(cases[i].map));
        memcpy(content + TAR_BLOCK, "data", 5);
        add(TAR_FILE, "GNUSparseFile.0/file", NULL, content);
        CHECK(unpack_fresh() == (cases[i].fine ? 0 : FAILURE_BAD_REQUEST));
    }
    start();
    add(TAR_PAX, "pax", NULL, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.name=../evil\n27 GNU.sparse.realsize=100\n");
    add(TAR_FILE, "innocent", NULL, "0\n");
    CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
}

static void an_old_file_stays_until_the_new_one_is_whole(void) {
    int directory = fresh_directory("into");
    CHECK(system("echo old > into/file && mkdir into/dir && touch into/dir/kept") == 0);
    start();
    add(TAR_FILE, "file", NULL, "new content that never ends");
    archive_size = TAR_BLOCK + 10;
    CHECK(unpack(directory) < 0 && failure.code == FAILURE_BAD_REQUEST);
    CHECK(system("test \"$(cat into/file)\" = old && test \"$(ls -A into | tr '\\n' ' ')\" = 'dir file '") == 0);
    start();
    add(TAR_FILE, "dir", NULL, "x");
    finish();
    CHECK(unpack(directory) < 0 && failure.code == EISDIR && access("into/dir/kept", F_OK) == 0);
    close(directory);
}

static void files_become_the_named_owners(void) {
    if (geteuid() != 0)
        return;
    struct stat status;
    int directory = fresh_directory("into");
    start();
    add(TAR_FILE, "made/file", NULL, "x");
    finish();
    int fd = memfd_create("archive", 0);
    CHECK(write(fd, archive, archive_size) == (ssize_t)archive_size && lseek(fd, 0, SEEK_SET) == 0);
    CHECK(tree_unpack(fd, directory, &(struct tree_owner){.given = true, .uid = 1234, .gid = 4321}, &totals, &failure) == 0);
    CHECK(stat("into/made/file", &status) == 0 && status.st_uid == 1234 && status.st_gid == 4321);
    CHECK(stat("into/made", &status) == 0 && status.st_uid == 1234);
    close(fd);
    close(directory);
}

static void a_negative_size_is_refused(void) {
    start();
    add(TAR_FILE, "f", NULL, NULL);
    struct tar_header *header = (struct tar_header *)archive;
    memset(header->size, 0xff, sizeof header->size);
    unsigned sum = 0;
    memset(header->checksum, ' ', sizeof header->checksum);
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += archive[i];
    snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
    CHECK(unpack_fresh() == FAILURE_BAD_REQUEST);
}

static void without_owners_there_are_no_devices_and_no_borrowed_rights(void) {
    const char devices[] = {TAR_CHARACTER, TAR_BLOCK_DEVICE};
    struct stat status;
    for (size_t i = 0; i < sizeof devices; i++) {
        start();
        add(devices[i], "device", NULL, NULL);
        CHECK(unpack_fresh() == FAILURE_UNSAFE_PATH);
        CHECK(lstat("into/device", &status) < 0);
    }
    for (int kept = 0; kept < 2; kept++) {
        keep_owners = kept;
        start();
        add(TAR_FILE, "file", NULL, "x");
        add(TAR_DIRECTORY, "dir", NULL, NULL);
        add(TAR_FIFO, "fifo", NULL, NULL);
        CHECK(unpack_fresh() == 0);
        CHECK(lstat("into/file", &status) == 0 && (status.st_mode & 07777) == (kept ? 07755 : 01755));
        CHECK(lstat("into/dir", &status) == 0 && (status.st_mode & 07777) == (kept ? 07755 : 01755));
        CHECK(lstat("into/fifo", &status) == 0 && (status.st_mode & 06000 & ~(kept ? 06000u : 0)) == 0);
    }
    keep_owners = false;
}

static void a_cut_archive_fails_wherever_it_is_cut(void) {
    start();
    add(TAR_FILE, "one", NULL, "first");
    add(TAR_FILE, "two", NULL, "second");
    finish();
    size_t whole = archive_size;
    for (archive_size = 0; archive_size < whole - 2 * TAR_BLOCK; archive_size += 97) {
        int directory = fresh_directory("into");
        CHECK(unpack(directory) < 0 && failure.code == FAILURE_BAD_REQUEST);
        close(directory);
    }
}

// Whatever the bytes are: no crash, no report of the sanitizers, nothing outside of the directory.
static void mutated_archives_stay_inside(void) {
    static uint8_t original[ARCHIVE_MAX];
    start();
    add(TAR_DIRECTORY, "dir", NULL, NULL);
    add(TAR_PAX, "pax", NULL, "30 path=dir/a-name-from-a-pax\n");
    add(TAR_FILE, "x", NULL, "content");
    add(TAR_SYMLINK, "dir/link", "..", NULL);
    add(TAR_HARD_LINK, "dir/hard", "dir/a-name-from-a-pax", NULL);
    add(TAR_GNU_LONG_NAME, "long", NULL, "dir/another-name");
    add(TAR_FILE, "y", NULL, "more content");
    add(TAR_PAX, "pax", NULL, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=dir/s\n27 GNU.sparse.realsize=100\n");
    char map[TAR_BLOCK + 5] = "1\n96\n4\n";
    memset(map + 7, '0', TAR_BLOCK - 7);
    memcpy(map + TAR_BLOCK, "data", 5);
    add(TAR_FILE, "s", NULL, map);
    finish();
    size_t size = archive_size;
    memcpy(original, archive, size);
    srandom(1);
    close(fresh_directory("into"));
    for (int i = 0; i < MUTATIONS; i++) {
        memcpy(archive, original, size);
        archive_size = size;
        for (long changes = 1 + random() % 4; changes; changes--)
            archive[(size_t)random() % size] = random() % 3 ? (uint8_t)random() : (uint8_t)"./0178"[random() % 6];
        // Mostly with a checksum that fits: the code behind it is the interesting one.
        for (size_t at = 0; random() % 4 && at + TAR_BLOCK <= size; at += TAR_BLOCK) {
            struct tar_header *header = (struct tar_header *)(archive + at);
            unsigned sum = 0;
            if (memcmp(header->magic, "ustar", 5) != 0)
                continue;
            memset(header->checksum, ' ', sizeof header->checksum);
            for (size_t k = 0; k < TAR_BLOCK; k++)
                sum += archive[at + k];
            snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
        }
        int directory = open("into", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        unpack(directory);
        close(directory);
    }
    CHECK(access("evil", F_OK) < 0);
    CHECK(system("test \"$(ls | sort | tr '\\n' ' ')\" = 'from into one secret two '") == 0);
    close(fresh_directory("into"));
}

int main(int argc, char **argv) {
    CHECK(argc == 2 && chdir(argv[1]) == 0);
    umask(0);
    RUN(a_tree_survives_the_round_trip);
    RUN(sparse_files_keep_their_holes);
    RUN(named_entries_stay_below_the_directory);
    RUN(archives_that_climb_are_refused);
    RUN(entries_through_links_are_refused);
    RUN(a_file_replaces_a_link_and_is_not_written_through_it);
    RUN(hard_links_obey_the_same_rules);
    RUN(pax_names_obey_the_same_rules);
    RUN(a_map_that_does_not_fit_its_file_is_refused);
    RUN(an_old_file_stays_until_the_new_one_is_whole);
    RUN(files_become_the_named_owners);
    RUN(a_negative_size_is_refused);
    RUN(without_owners_there_are_no_devices_and_no_borrowed_rights);
    RUN(a_cut_archive_fails_wherever_it_is_cut);
    RUN(mutated_archives_stay_inside);
    return 0;
}
