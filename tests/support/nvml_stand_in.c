/* A stand-in for libnvidia-ml.so.1, NVIDIA's driver library, with the GPUs of a text file.
 *
 * NVML_STAND_IN names the file. Its lines, whose last word goes to the end of the line:
 *
 *     gpu UUID PCI_BUS_ID MIG_MODE NAME     MIG_MODE is 1, 0, or -1 where the model has none
 *     part UUID GPU_INSTANCE COMPUTE_INSTANCE NAME     of the GPU above
 *     denied      a GPU that this process may not open
 *     block       nvmlInit never returns
 *
 * Signatures and structures are those of nvml.h 12.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6 };

struct device {
    char uuid[96], bus_id[32], name[96];
    int mig_mode, is_denied, parts, gpu_instance, compute_instance;
    struct device *part[8];
};

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;

static struct device *devices[16];
static unsigned count;
static int is_initialized;

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    const char *path = getenv("NVML_STAND_IN");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return NOT_FOUND;
    char line[512];
    count = 0;
    while (fgets(line, sizeof line, file)) {
        struct device *one = calloc(1, sizeof *one);
        if (!strncmp(line, "block", 5)) {
            for (;;)
                pause();
        } else if (!strncmp(line, "denied", 6)) {
            one->is_denied = 1;
            devices[count++] = one;
        } else if (sscanf(line, "gpu %95s %31s %d %95[^\n]", one->uuid, one->bus_id,
                          &one->mig_mode, one->name) == 4) {
            devices[count++] = one;
        } else if (sscanf(line, "part %95s %d %d %95[^\n]", one->uuid, &one->gpu_instance,
                          &one->compute_instance, one->name) == 4) {
            struct device *parent = devices[count - 1];
            parent->part[parent->parts++] = one;
        }
    }
    fclose(file);
    is_initialized = 1;
    return SUCCESS;
}

int nvmlShutdown(void)
{
    is_initialized = 0;
    return SUCCESS;
}

const char *nvmlErrorString(int result)
{
    (void)result;
    return "an error of the stand-in";
}

int nvmlDeviceGetCount_v2(unsigned *found)
{
    *found = count;
    return is_initialized ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **found)
{
    if (devices[index]->is_denied)
        return NO_PERMISSION;
    *found = devices[index];
    return is_initialized ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetUUID(struct device *one, char *text, unsigned length)
{
    snprintf(text, length, "%s", one->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(struct device *one, char *text, unsigned length)
{
    snprintf(text, length, "%s", one->name);
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(struct device *one, pci_info *info)
{
    memset(info, 0, sizeof *info);
    snprintf(info->bus_id, sizeof info->bus_id, "%s", one->bus_id);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(struct device *one, unsigned *current, unsigned *pending)
{
    if (one->mig_mode < 0)
        return NOT_SUPPORTED;
    *current = *pending = one->mig_mode;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *one, unsigned *found)
{
    (void)one;
    *found = 8;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *one, unsigned index, struct device **found)
{
    if ((int)index >= one->parts)
        return NOT_FOUND;
    *found = one->part[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(struct device *one, unsigned *number)
{
    *number = one->gpu_instance;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(struct device *one, unsigned *number)
{
    *number = one->compute_instance;
    return SUCCESS;
}
