/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - codes of the library: names, sentences, groups (see aviary/base.h)
 */
#include <aviary/base.h>

#include "base/macros.h"

#include "base/banned.h"

static const struct {
	int code;
	const char *name, *text;
} codes[] = {
    {AVIARY_OK, "AVIARY_OK", "no error"},
    {AVIARY_E_INVALID, "AVIARY_E_INVALID", "a value is not allowed"},
    {AVIARY_E_NO_MEMORY, "AVIARY_E_NO_MEMORY", "out of memory"},
    {AVIARY_E_STATE, "AVIARY_E_STATE", "not possible now"},
    {AVIARY_E_CANCELED, "AVIARY_E_CANCELED", "canceled"},
    {AVIARY_E_TIMEOUT, "AVIARY_E_TIMEOUT", "the time is over"},
    {AVIARY_E_AGAIN, "AVIARY_E_AGAIN", "not finished yet"},
    {AVIARY_E_TOO_LARGE, "AVIARY_E_TOO_LARGE", "too large"},
    {AVIARY_E_UNSUPPORTED, "AVIARY_E_UNSUPPORTED", "this Aviary cannot do that"},
    {AVIARY_E_LOCAL, "AVIARY_E_LOCAL", "a file of this machine cannot be read or written"},
    {AVIARY_E_NO_CREDENTIALS, "AVIARY_E_NO_CREDENTIALS", "no API key was found"},
    {AVIARY_E_UNAUTHORIZED, "AVIARY_E_UNAUTHORIZED", "the server does not know these credentials"},
    {AVIARY_E_FORBIDDEN, "AVIARY_E_FORBIDDEN", "not allowed"},
    {AVIARY_E_WANDB, "AVIARY_E_WANDB", "a key of W&B needs WANDB_ENTITY_NAME"},
    {AVIARY_E_UNREACHABLE, "AVIARY_E_UNREACHABLE", "the server does not answer"},
    {AVIARY_E_TLS, "AVIARY_E_TLS", "the server's certificate is not trusted"},
    {AVIARY_E_BROKEN, "AVIARY_E_BROKEN", "the connection broke"},
    {AVIARY_E_PROTOCOL, "AVIARY_E_PROTOCOL", "the answer is not one of an Aviary"},
    {AVIARY_E_NOT_FOUND, "AVIARY_E_NOT_FOUND", "not found"},
    {AVIARY_E_CONFLICT, "AVIARY_E_CONFLICT", "it is there already, or in another state"},
    {AVIARY_E_QUOTA, "AVIARY_E_QUOTA", "a quota is used up"},
    {AVIARY_E_RATE_LIMITED, "AVIARY_E_RATE_LIMITED", "too many requests"},
    {AVIARY_E_NO_SPACE, "AVIARY_E_NO_SPACE", "no space left"},
    {AVIARY_E_UNAVAILABLE, "AVIARY_E_UNAVAILABLE", "the server cannot serve this now"},
    {AVIARY_E_INTERNAL, "AVIARY_E_INTERNAL", "an error inside the server"},
    {AVIARY_E_SANDBOX_NOT_FOUND, "AVIARY_E_SANDBOX_NOT_FOUND", "there is no such sandbox"},
    {AVIARY_E_SANDBOX_NOT_RUNNING, "AVIARY_E_SANDBOX_NOT_RUNNING", "the sandbox does not run"},
    {AVIARY_E_SANDBOX_FAILED, "AVIARY_E_SANDBOX_FAILED", "the sandbox failed"},
    {AVIARY_E_SANDBOX_TERMINATED, "AVIARY_E_SANDBOX_TERMINATED", "the sandbox was ended"},
    {AVIARY_E_SANDBOX_TIMEOUT, "AVIARY_E_SANDBOX_TIMEOUT", "the sandbox was not there in time"},
    {AVIARY_E_PORT_CLOSED, "AVIARY_E_PORT_CLOSED", "nothing listens on that port of the sandbox"},
    {AVIARY_E_EXEC_FAILED, "AVIARY_E_EXEC_FAILED", "the program failed"},
    {AVIARY_E_EXEC_TIMEOUT, "AVIARY_E_EXEC_TIMEOUT", "the program's time is over"},
    {AVIARY_E_EXEC_NOT_FOUND, "AVIARY_E_EXEC_NOT_FOUND", "there is no such program or process"},
    {AVIARY_E_EXEC_NOT_EXECUTABLE, "AVIARY_E_EXEC_NOT_EXECUTABLE", "it cannot be executed"},
    {AVIARY_E_EXEC_STDIN, "AVIARY_E_EXEC_STDIN", "the program takes no more input"},
    {AVIARY_E_FILE_NOT_FOUND, "AVIARY_E_FILE_NOT_FOUND", "there is no such file"},
    {AVIARY_E_FILE_EXISTS, "AVIARY_E_FILE_EXISTS", "the file is there already"},
    {AVIARY_E_FILE_DENIED, "AVIARY_E_FILE_DENIED", "no permission for the file"},
    {AVIARY_E_FILE_IS_DIRECTORY, "AVIARY_E_FILE_IS_DIRECTORY", "it is a directory"},
    {AVIARY_E_FILE_NOT_DIRECTORY, "AVIARY_E_FILE_NOT_DIRECTORY", "it is no directory"},
    {AVIARY_E_FILE, "AVIARY_E_FILE", "the file cannot be had"},
    {AVIARY_E_FUNCTION_UNKNOWN, "AVIARY_E_FUNCTION_UNKNOWN", "there is no such remote function"},
    {AVIARY_E_FUNCTION_ARCH, "AVIARY_E_FUNCTION_ARCH", "the sandbox has another processor"},
    {AVIARY_E_FUNCTION_BUILD, "AVIARY_E_FUNCTION_BUILD", "the program there is another build"},
    {AVIARY_E_FUNCTION_PROGRAM, "AVIARY_E_FUNCTION_PROGRAM", "this program cannot be shipped"},
    {AVIARY_E_FUNCTION_ARGUMENT, "AVIARY_E_FUNCTION_ARGUMENT", "an argument cannot be sent"},
    {AVIARY_E_FUNCTION_RESULT, "AVIARY_E_FUNCTION_RESULT", "the result cannot be read"},
    {AVIARY_E_FUNCTION_CRASHED, "AVIARY_E_FUNCTION_CRASHED", "the function did not return"},
    {AVIARY_E_FUNCTION_FAILED, "AVIARY_E_FUNCTION_FAILED", "the function returned an error"},
};

const char *aviary_version(void)
{
	return AVIARY_VERSION;
}

const char *aviary_code_name(int code)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(codes); i++)
		if (codes[i].code == code)
			return codes[i].name;
	return "unknown";
}

const char *aviary_code_text(int code)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(codes); i++)
		if (codes[i].code == code)
			return codes[i].text;
	return "unknown error";
}

int aviary_error_is(int code, int what)
{
	if ((-what & 0xff) == 0 && what < 0)
		return code < 0 && (-code & 0xff00) == -what;
	return code == what;
}
