/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs.h - the OpenAPI document and the page that shows it, as they are served (made by embed.py)
 */
#pragma once

extern const char api_docs_yaml[];
extern const char api_docs_json[]; /* the same document */
extern const char api_docs_html[];
extern const char api_docs_js[];
extern const char api_docs_css[];
