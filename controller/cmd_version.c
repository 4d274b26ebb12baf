/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/cli.h"

#include "base/mem.h"

#include <curl/curl.h>
#include <event2/event.h>
#include <json-c/json.h>
#include <netlink/version.h>
#include <yaml.h>

int cmd_version(const struct cli_options *o)
{
	const struct {
		const char *name, *version;
	} rows[] = {
		{"version", SLIPSTREAM_VERSION},
		{"commit", SLIPSTREAM_COMMIT},
		{"libcurl", curl_version_info(CURLVERSION_NOW)->version},
		{"libevent", event_get_version()},
		{"json-c", json_c_version()},
		{"libyaml", yaml_get_version_string()},
		{"libnl", LIBNL_VERSION},
	};

	if (o->json) {
		struct json_object *json = json_object_new_object();

		for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
			json_object_object_add(json, rows[i].name, json_object_new_string(rows[i].version));
		puts(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED));
		json_object_put(json);
		return CLI_OK;
	}
	printf("slipstream %s (%s)\n", SLIPSTREAM_VERSION, SLIPSTREAM_COMMIT);
	for (size_t i = 2; i < ARRAY_SIZE(rows); i++)
		printf("%s %s\n", rows[i].name, rows[i].version);
	return CLI_OK;
}
