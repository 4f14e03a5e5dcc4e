/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aviary.h - libaviary: sandboxes of an Aviary from C (see the headers below)
 */
#ifndef AVIARY_H
#define AVIARY_H

#include <aviary/base.h>
#include <aviary/cleanup.h>
#include <aviary/client.h>
#include <aviary/code.h>
#include <aviary/events.h>
#include <aviary/files.h>
#include <aviary/logs.h>
#include <aviary/models.h>
#include <aviary/op.h>
#include <aviary/ports.h>
#include <aviary/process.h>
#include <aviary/remote.h>
#include <aviary/resources.h>
#include <aviary/sandbox.h>
#include <aviary/session.h>
#include <aviary/watch.h>

#endif
