// Of Apple's performance primitives, those that convjit uses.
#pragma once
#include <MetalPerformancePrimitives/MPPTensorOpsConvolution2d.h>
