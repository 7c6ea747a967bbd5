/* Preloaded into a process, records what it writes to the files of a folder, for power_loss.py.

   Environment: RECORDED_FOLDER, and RECORDED_LOG for the file that gets the records. Each is a
   struct record, with `size` bytes after it where the kind is 'w' or 'r'. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct record {
    uint64_t kind, file;
    int64_t offset, size;
};

static ssize_t (*real_write)(int, const void *, size_t);

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void keep(uint64_t kind, uint64_t file, int64_t offset, const void *data, int64_t size) {
    static int log = -1;
    struct record record = {kind, file, offset, size};
    if (!real_write) real_write = real("write");
    if (log < 0) log = open(getenv("RECORDED_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (real_write(log, &record, sizeof record) != sizeof record) abort();
    for (int64_t done = 0; data && done < size;) {
        ssize_t count = real_write(log, (const char *)data + done, size - done);
        if (count <= 0) abort();
        done += count;
    }
}

/* Whether a descriptor is of the folder or of a file in it that is not a lock. */
static int is_recorded(int fd, struct stat *status) {
    char link[64], path[4096];
    const char *folder = getenv("RECORDED_FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!folder || length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (length > 5 && !strcmp(path + length - 5, ".lock")) return 0;
    return !fstat(fd, status);
}

static ssize_t written(int fd, const void *data, ssize_t count, int64_t offset) {
    int error = errno;
    struct stat status;
    if (count > 0 && is_recorded(fd, &status)) keep('w', status.st_ino, offset, data, count);
    errno = error;
    return count;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!real_write) real_write = real("write");
    int64_t offset = lseek(fd, 0, SEEK_CUR);
    return written(fd, data, real_write(fd, data, size), offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t (*call)(int, const void *, size_t, off64_t) = real("pwrite64");
    return written(fd, data, call(fd, data, size, offset), offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}

int ftruncate64(int fd, off64_t length) {
    int (*call)(int, off64_t) = real("ftruncate64");
    struct stat status;
    int result = call(fd, length);
    if (!result && is_recorded(fd, &status)) keep('t', status.st_ino, length, NULL, 0);
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
    int (*call)(int) = real("fsync");
    struct stat status;
    int result = call(fd);
    if (!result && is_recorded(fd, &status))
        keep(S_ISDIR(status.st_mode) ? 'd' : 's', status.st_ino, 0, NULL, 0);
    return result;
}

int fdatasync(int fd) { return fsync(fd); }

int rename(const char *source, const char *target) {
    int (*call)(const char *, const char *) = real("rename");
    struct stat status;
    int result = call(source, target);
    const char *folder = getenv("RECORDED_FOLDER");
    if (!result && folder && !strncmp(target, folder, strlen(folder)) && !stat(target, &status))
        keep('r', status.st_ino, 0, target, strlen(target));
    return result;
}
