#pragma once
#ifdef __cplusplus
extern "C" {
#endif
int shapes_measure(double side, char *out, unsigned long room);
long shapes_asked(void);
long shapes_cleaned(void);
void shapes_wait(int fd);
#ifdef __cplusplus
}
#endif
