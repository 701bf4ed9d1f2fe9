/* SPDX-License-Identifier: MIT */
#include "page.h"

__asm__(".pushsection .rodata\n"
        ".global page_html\n"
        "page_html:\n"
        ".incbin \"" PAGE_HTML "\"\n"
        "page_html_end:\n"
        ".byte 0\n"
        ".global page_html_size\n"
        ".balign 4\n"
        "page_html_size:\n"
        ".long page_html_end - page_html\n"
        ".popsection\n");
