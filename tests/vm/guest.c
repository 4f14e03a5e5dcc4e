/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.c - a kernel of some lines that fills and sums its memory as it is told over a serial line
 *
 * QEMU loads it as a multiboot image; x86, 32 bits, no paging. Commands are lines of a letter and
 * hexadecimal numbers, answers a line of one:
 *
 *   f SEED FIRST PAGES    each page is filled with the word SEED + its number
 *   z FIRST PAGES         with zeros
 *   h FIRST PAGES         -> checksum (FNV-1a of words)
 *   c                     -> how often it has looked for a command: it counts in memory
 */
typedef unsigned int u32;
typedef unsigned char u8;

#define PORT 0x3f8
#define PAGE 4096u
#define LINE 64

__attribute__((section(".multiboot"), used)) static const u32 header[] = {
    0x1badb002, 0, 0u - 0x1badb002};

static char stack[16384] __attribute__((aligned(16), used));
static volatile u32 counter;

static u8 in(u32 port)
{
	u8 v;
	__asm__ volatile("inb %w1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void out(u32 port, u8 v)
{
	__asm__ volatile("outb %0, %w1" : : "a"(v), "Nd"(port));
}

static void put(char c)
{
	while (!(in(PORT + 5) & 0x20))
		;
	out(PORT, (u8)c);
}

static char get(void)
{
	while (!(in(PORT + 5) & 1))
		counter++;
	return (char)in(PORT);
}

static u32 number(const char **p)
{
	u32 n = 0;
	while (**p == ' ')
		(*p)++;
	for (; **p && **p != ' '; (*p)++)
		n = n * 16 + (u32)(**p <= '9' ? **p - '0' : **p - 'a' + 10);
	return n;
}

static void answer(u32 n)
{
	for (int i = 28; i >= 0; i -= 4)
		put("0123456789abcdef"[n >> i & 15]);
	put('\n');
}

static void fill(u32 page, u32 word)
{
	u32 *to = (u32 *)(page * PAGE), n = PAGE / 4;
	__asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(word) : "memory");
}

static u32 sum(u32 first, u32 pages)
{
	u32 h = 2166136261u;
	const u32 *p = (const u32 *)(first * PAGE);
	for (u32 i = 0; i < pages * (PAGE / 4); i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

static u32 obey(const char *line)
{
	const char *p = line + 1;
	u32 seed = *line == 'f' ? number(&p) : 0;
	if (*line == 'c')
		return counter;
	u32 first = number(&p), pages = number(&p);
	if (*line == 'h')
		return sum(first, pages);
	for (u32 i = first; i < first + pages; i++)
		fill(i, *line == 'f' ? seed + i : 0);
	return pages;
}

__attribute__((used)) static void run(void)
{
	char line[LINE];
	u32 n = 0;
	answer(0);
	for (;;) {
		char c = get();
		if (c == '\n') {
			line[n] = '\0';
			n = 0;
			answer(obey(line));
		} else if (n < LINE - 1) {
			line[n++] = c;
		}
	}
}

__asm__(".globl _start\n_start:\n\tmov $stack + 16384, %esp\n\tcld\n\tcall run\n");
