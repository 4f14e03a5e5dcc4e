/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_child.c - the program that floors and peers run: says "x" and, with an argument, stays
 */
#include <unistd.h>

int main(int argc, char **argv)
{
	(void)argv;
	if (write(STDOUT_FILENO, "x\n", 2) != 2)
		return 1;
	while (argc > 1)
		pause();
	return 0;
}
