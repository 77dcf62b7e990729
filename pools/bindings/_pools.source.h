#include <poolport/poolport.h>
