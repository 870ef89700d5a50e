/*
 * A client of GSSAPI without SSH, for the test of attacks: gssclient host@NAME prints its
 * first token. Then it reads lines: "t TOKEN" establishes the context, and
 * "m MESSAGE" prints a MIC. All are in hexadecimal.
 */
#include <gssapi/gssapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gss_ctx_id_t context = GSS_C_NO_CONTEXT;
static gss_name_t name;

static void fail(const char *doing, OM_uint32 major, OM_uint32 minor)
{
	fprintf(stderr, "%s: %x %x\n", doing, major, minor);
	exit(1);
}

static void print(gss_buffer_t b)
{
	for (size_t i = 0; i < b->length; i++)
		printf("%02x", ((unsigned char *)b->value)[i]);
	putchar('\n');
	fflush(stdout);
}

static void establish(gss_buffer_t token)
{
	gss_OID_desc krb5 = {9, "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"};
	gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
	OM_uint32 minor, major;

	major = gss_init_sec_context(&minor, GSS_C_NO_CREDENTIAL, &context, name, &krb5, GSS_C_MUTUAL_FLAG | GSS_C_INTEG_FLAG, 0, NULL, token, NULL, &out, NULL, NULL);
	if (GSS_ERROR(major))
		fail("gss_init_sec_context", major, minor);
	print(&out);
}

int main(int argc, char **argv)
{
	static char line[1 << 18];
	static unsigned char data[1 << 17];
	gss_buffer_desc service = {strlen(argv[1]), argv[1]}, mic;
	OM_uint32 minor, major;

	(void)argc;
	major = gss_import_name(&minor, &service, GSS_C_NT_HOSTBASED_SERVICE, &name);
	if (GSS_ERROR(major))
		fail("gss_import_name", major, minor);
	establish(GSS_C_NO_BUFFER);
	while (fgets(line, sizeof line, stdin) != NULL) {
		gss_buffer_desc b = {0, data};

		for (char *at = line + 2; sscanf(at, "%2hhx", &data[b.length]) == 1; at += 2)
			b.length++;
		if (line[0] == 't') {
			establish(&b);
			continue;
		}
		major = gss_get_mic(&minor, context, GSS_C_QOP_DEFAULT, &b, &mic);
		if (GSS_ERROR(major))
			fail("gss_get_mic", major, minor);
		print(&mic);
	}
	return 0;
}
