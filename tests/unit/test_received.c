
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_received.h"
#include "tap.h"


#define S(text)  { (const uint8_t *) text, sizeof(text) - 1 }

#define N10   "abcdefghi."
#define N50   N10 N10 N10 N10 N10
#define N250  N50 N50 N50 N50 N50

#define NOW   1795789859                /* 2026-11-27 14:30:59 UTC */
#define DATE  "\r\n\tFri, 27 Nov 2026 14:30:59 +0000\r\n"
#define BY    "\r\n\tby edge.example with ESMTP id 7-1;" DATE


typedef struct {
    mpol_received_t  field;
    const char      *text;
} case_t;


typedef struct {
    uint64_t     time;
    int          offset;
    const char  *text;
} date_t;


#define F(helo, host, address)                                               \
    { S(helo), S(host), S(address), S("edge.example"), S("ESMTP"), 7, 1,     \
      NOW, 0, 0 }

#define P(protocol, utf8)                                                    \
    { S("h"), S(""), S(""), S("e"), S(protocol), 1, 2, NOW, 0, utf8 }

#define WITH(protocol)  "Received: from h\r\n\tby e" protocol " id 1-2;" DATE


static const case_t  cases[] = {

    /* who it is from */

    { F("laptop", "c.example.net", "192.0.2.1"),
      "Received: from laptop (c.example.net [192.0.2.1])" BY },
    { F("laptop", "", "192.0.2.1"),
      "Received: from laptop ([192.0.2.1])" BY },
    { F("[192.0.2.9]", "", "2001:db8::1"),
      "Received: from [192.0.2.9] ([IPv6:2001:db8::1])" BY },
    { F("h", "c.example.net", "2001:db8::1"),
      "Received: from h (c.example.net [IPv6:2001:db8::1])" BY },

    /* at a unix socket */

    { F("laptop", "", ""), "Received: from laptop" BY },
    { F("laptop", "c.example.net", ""), "Received: from laptop" BY },

    /* what it may be called */

    { F("", "", "192.0.2.1"), "Received: from unknown ([192.0.2.1])" BY },
    { F("a b", "", "192.0.2.1"), "Received: from unknown ([192.0.2.1])" BY },
    { F("a\r\nSubject: x", "", "192.0.2.1"),
      "Received: from unknown ([192.0.2.1])" BY },
    { F("(", "a)\r\n", "192.0.2.1"),
      "Received: from unknown ([192.0.2.1])" BY },
    { F("\xc3\xa4.example", "x;y", "192.0.2.1"),
      "Received: from unknown ([192.0.2.1])" BY },
    { F("a\0b", "a\0b", "192.0.2.1"),
      "Received: from unknown ([192.0.2.1])" BY },

    /* an address that is none */

    { F("h", "c", "1234567890123456789012345678901234567890123456"),
      "Received: from h" BY },

    /* folded */

    { F(N50, "c.example.net", "192.0.2.1"),
      "Received: from " N50 "\r\n\t(c.example.net [192.0.2.1])" BY },
    { F(N10 N50 "ab", "", "192.0.2.1"),
      "Received: from " N10 N50 "ab\r\n\t([192.0.2.1])" BY },
    { F(N10 N50 "abc", "", "192.0.2.1"),
      "Received: from " N10 N50 "abc\r\n\t([192.0.2.1])" BY },
    { F(N10 N50 "abcd", "", "192.0.2.1"),
      "Received: from\r\n\t" N10 N50 "abcd\r\n\t([192.0.2.1])" BY },
    { F(N250, N250, "2001:db8:1111:2222:3333:4444:5555:6666"),
      "Received: from\r\n\t" N250 "\r\n\t(" N250 "\r\n\t"
      "[IPv6:2001:db8:1111:2222:3333:4444:5555:6666])" BY },
    { { S("h"), S(""), S(""), S(N50 N10 "abc"), S("ESMTPSA"),
        18446744073709551615U, 18446744073709551615U, NOW, -90, 0 },
      "Received: from h\r\n\tby " N50 N10 "abc with\r\n\tESMTPSA id "
      "18446744073709551615-18446744073709551615;\r\n\t"
      "Fri, 27 Nov 2026 13:00:59 -0130\r\n" },

    /* our own name, as somebody has configured it */

    { { S("h"), S(""), S(""), S("my edge\n"), S("SMTP"), 1, 2, NOW, 0, 0 },
      "Received: from h\r\n\tby unknown with SMTP id 1-2;" DATE },

    /* RFC 3848, RFC 6531 */

    { P("SMTP", 0), WITH(" with SMTP") },
    { P("ESMTPSA", 0), WITH(" with ESMTPSA") },
    { P("ESMTP", 1), WITH(" with UTF8SMTP") },
    { P("ESMTPA", 1), WITH(" with UTF8SMTPA") },
    { P("ESMTPS", 1), WITH(" with UTF8SMTPS") },
    { P("ESMTPSA", 1), WITH(" with UTF8SMTPSA") },
    { P("SMTP", 1), WITH(" with SMTP") },
    { P("", 0), WITH("") },
    { P("12345678901234567", 0), WITH("") }
};


static const date_t  dates[] = {
    { 0, 0, "Thu, 01 Jan 1970 00:00:00 +0000" },
    { 0, -60, "Thu, 01 Jan 1970 00:00:00 -0100" },
    { 86399, 1, "Fri, 02 Jan 1970 00:00:59 +0001" },
    { 951782399, 0, "Mon, 28 Feb 2000 23:59:59 +0000" },
    { 951782400, 0, "Tue, 29 Feb 2000 00:00:00 +0000" },
    { 951868800, 0, "Wed, 01 Mar 2000 00:00:00 +0000" },
    { 1709164800, 0, "Thu, 29 Feb 2024 00:00:00 +0000" },
    { 1735689599, 0, "Tue, 31 Dec 2024 23:59:59 +0000" },
    { 1735689599, 60, "Wed, 01 Jan 2025 00:59:59 +0100" },
    { 1735689600, -330, "Tue, 31 Dec 2024 18:30:00 -0530" },
    { NOW, 0, "Fri, 27 Nov 2026 14:30:59 +0000" },
    { NOW, 765, "Sat, 28 Nov 2026 03:15:59 +1245" },
    { 4107542400U, 0, "Mon, 01 Mar 2100 00:00:00 +0000" },
    { 4107542399U, 0, "Sun, 28 Feb 2100 23:59:59 +0000" },
    { 13574649599U, 0, "Tue, 29 Feb 2400 23:59:59 +0000" },
    { 253402300799U, 0, "Fri, 31 Dec 9999 23:59:59 +0000" }
};


int
main(void)
{
    size_t    i, n;
    uint8_t  *out;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        out = malloc(MPOL_RECEIVED_SIZE);
        n = mpol_received_build(&cases[i].field, out);

        is_mem(out, n, cases[i].text, strlen(cases[i].text), "field %lu",
               (unsigned long) i);
        free(out);
    }

    for (i = 0; i < sizeof(dates) / sizeof(dates[0]); i++) {
        out = malloc(MPOL_RECEIVED_DATE);
        n = mpol_received_date(dates[i].time, dates[i].offset, out);

        is_mem(out, n, dates[i].text, strlen(dates[i].text), "%s",
               dates[i].text);
        free(out);
    }

    return done_testing();
}
