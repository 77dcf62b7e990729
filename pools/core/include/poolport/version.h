/* poolport/version.h - the one place that states the version; the build reads it from here. */
#ifndef POOLPORT_VERSION_H
#define POOLPORT_VERSION_H

#define PP_VERSION "0.1.0"

#endif
