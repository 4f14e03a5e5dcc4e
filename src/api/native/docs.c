/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs.c - the OpenAPI document and the page that shows it
 *
 * Nothing is fetched from elsewhere, and the page's policy forbids it: a document about an API that
 * holds keys must not run what others host.
 */
#include "api/docs/docs.h"

#include "api/native/native.h"
#include "api/request.h"
#include "base/banned.h"

static const char page_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static void send_text(struct api_request *rq, const char *type, const char *text)
{
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"), .value = av_str_c(type)},
	    {.name = AV_STR("content-security-policy"), .value = av_str_c(page_policy)},
	    {.name = AV_STR("x-content-type-options"), .value = AV_STR("nosniff")},
	    {.name = AV_STR("referrer-policy"), .value = AV_STR("no-referrer")},
	};

	api_started(rq, 200);
	(void)av_res_send(rq->req, 200, headers, AV_ARRAY_LEN(headers), av_str_c(text));
}

void native_openapi_yaml(struct api_request *rq)
{
	send_text(rq, "application/yaml", api_docs_yaml);
}

void native_openapi_json(struct api_request *rq)
{
	send_text(rq, "application/json", api_docs_json);
}

void native_docs(struct api_request *rq)
{
	send_text(rq, "text/html; charset=utf-8", api_docs_html);
}

void native_docs_js(struct api_request *rq)
{
	send_text(rq, "text/javascript; charset=utf-8", api_docs_js);
}

void native_docs_css(struct api_request *rq)
{
	send_text(rq, "text/css; charset=utf-8", api_docs_css);
}
