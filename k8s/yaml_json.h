/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_YAML_JSON_H
#define K8S_YAML_JSON_H

#include "base/yamldoc.h"

/*
 * yaml_json: a YAML node as the JSON that the API server would have been sent.
 *
 * Plain scalars are typed by YAML 1.2's core schema (null, true, false, integers with 0o and 0x, fractions);
 * quoted ones are strings. A number with leading zeros stays a string: YAML 1.1 and 1.2 disagree about it
 * (010 is 8 or 10), and a decoder that wants a number then says so. Words like yes and on are strings.
 *
 * The caller owns the result (json_object_put()); NULL is JSON's null.
 */
struct json_object;
struct json_object *yaml_to_json(const struct yaml_node *node);

#endif
