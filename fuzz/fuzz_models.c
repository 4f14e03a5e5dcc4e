/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_models.c - answers of a hostile server: the first line names the model, the rest is the
 * body; what is decoded can be encoded, and comes back the same
 */
#include "base/jsontext.h"
#include "client/model.h"

#include "fuzz.h"

#include "base/banned.h"

/* Every name means one, so that the fuzzer finds them all. */
static const struct avc_model *named(struct av_str name)
{
	size_t sum = 0;

	for (size_t i = 0; i < avc_n_models; i++)
		if (av_str_eq(name, av_str_c(avc_models[i]->type.name)))
			return avc_models[i];
	for (size_t i = 0; i < name.n; i++)
		sum += (unsigned char)name.p[i];
	return avc_models[sum % avc_n_models];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char text[AVC_MODEL_TEXT] = "";
	void *first = NULL, *second = NULL;
	struct av_str rest = av_str_n((const char *)data, n), name;
	const struct avc_model *m;
	json_t *j, *same, *once, *twice;
	int r;

	(void)av_str_cut(&rest, '\n', &name);
	m = named(name);
	j = avc_json_load(rest, &r);
	same = json_loadb(rest.p, rest.n, JSON_REJECT_DUPLICATES, NULL);
	/* What is read is what jansson reads; depth and cost are bounded here only. */
	FUZZ_CHECK(j ? same && json_equal(j, same) : !same || !av_json_valid(rest));
	json_decref(same);
	if (!j) {
		FUZZ_CHECK(r < 0);
		return 0;
	}
	r = avc_model_decode(m, j, &first, text);
	json_decref(j);
	if (r < 0) {
		FUZZ_CHECK(!first && text[0]);
		return 0;
	}
	once = avc_model_encode(m, first);
	FUZZ_CHECK(once);
	r = avc_model_decode(m, once, &second, text);
	FUZZ_CHECK(r == 0);
	twice = avc_model_encode(m, second);
	FUZZ_CHECK(twice && json_equal(once, twice));
	json_decref(once);
	json_decref(twice);
	avc_model_free(first);
	avc_model_free(second);
	return 0;
}
