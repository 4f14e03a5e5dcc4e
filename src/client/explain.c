/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain.c - what libcurl's failures mean to people, and what they can do about them
 */
#include "client/request.h"

#include <stdio.h>

#include "base/banned.h"

/* What CURLINFO_SSL_VERIFYRESULT says: values of OpenSSL's x509_vfy.h, whose headers libcurl does
 * not need. */
#define X509_V_ERR_UNSPECIFIED        1 /* until libcurl has found that the name fits */
#define X509_V_ERR_CERT_NOT_YET_VALID 9
#define X509_V_ERR_CERT_HAS_EXPIRED   10

/* The server's certificate does not do. */
static void untrusted(
    const aviary_client *c, CURL *easy, const char *detail, char *text, size_t size)
{
	long why = 0;

	(void)curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &why);
	if (why == X509_V_ERR_CERT_HAS_EXPIRED || why == X509_V_ERR_CERT_NOT_YET_VALID)
		(void)snprintf(text, size,
		    "%.250s: its certificate is %s; the daemon's tls-cert must be renewed, or a "
		    "clock is wrong",
		    c->base_url, why == X509_V_ERR_CERT_HAS_EXPIRED ? "expired" : "not valid yet");
	else if (why <= X509_V_ERR_UNSPECIFIED)
		(void)snprintf(text, size,
		    "%.250s: its certificate is for another name (%s); begin the URL with one of "
		    "its names",
		    c->base_url, detail);
	else if (c->ca_file)
		(void)snprintf(text, size,
		    "%.250s: its certificate is not from an authority in %.250s: %s", c->base_url,
		    c->ca_file, detail);
	else
		(void)snprintf(text, size,
		    "%.250s: its certificate is from nobody whom this machine trusts (%s); if it "
		    "is yours, name the file of its authority, or of itself, with ca_file, "
		    "--ca FILE or AVIARY_CA",
		    c->base_url, detail);
}

void avc_explain(const aviary_client *c, CURL *easy, CURLcode result, const char *detail,
    char *text, size_t size)
{
	if (!detail[0])
		detail = curl_easy_strerror(result);
	switch (result) {
	case CURLE_PEER_FAILED_VERIFICATION:
		untrusted(c, easy, detail, text, size);
		return;
	case CURLE_SSL_CACERT_BADFILE:
		(void)snprintf(text, size,
		    "%.250s: no certificates in PEM form can be read from it",
		    c->ca_file ? c->ca_file : "the system's list of authorities");
		return;
	case CURLE_SSL_CONNECT_ERROR:
		(void)snprintf(text, size,
		    "%.250s: no TLS with it: %s; if it serves plain HTTP, begin the URL with "
		    "http://",
		    c->base_url, detail);
		return;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		(void)snprintf(text, size, "%.250s: %s", c->base_url, detail);
		return;
	case CURLE_OPERATION_TIMEDOUT:
		(void)snprintf(
		    text, size, "%.250s did not answer in time: %s", c->base_url, detail);
		return;
	default:
		(void)snprintf(
		    text, size, "the connection to %.250s broke: %s", c->base_url, detail);
	}
}
