//! Finds libdpdk by pkg-config, has bindgen read its headers through `shim/shim.h`, and compiles
//! the shim for what they only have as static inline. Where something is missing, it says which
//! packages bring it.

fn main() {
    #[cfg(feature = "libdpdk")]
    libdpdk::build();
}

#[cfg(feature = "libdpdk")]
mod libdpdk {
    use std::env;
    use std::path::PathBuf;
    use std::process::exit;

    const PACKAGES: &str = "on Debian: apt-get install --no-install-recommends libdpdk-dev pkg-config \
                            libclang1-14 libclang-common-14-dev (clang's runtime may be of another \
                            version: libclang1-N and libclang-common-N-dev)";
    /// What the layout asserts and the fast path were written for.
    const OLDEST: &str = "22.11";
    const NEWEST: &str = "23.03";

    /// The functions that are used, all of them exported by libdpdk or by the shim.
    const FUNCTIONS: &[&str] = &[
        "hio_.*",
        "rte_eal_(init|cleanup|hotplug_remove|has_hugepages|iova_mode|process_type)",
        "rte_eal_(remote_launch|wait_lcore|get_lcore_state)",
        "rte_dev_(probe|remove|name)",
        "rte_dev_bus_info",
        "rte_eth_(dev_count_avail|find_next|iterator_.*)",
        "rte_eth_dev_(info_get|configure|start|stop|close|socket_id|get_name_by_port|is_removed)",
        "rte_eth_dev_(get_port_by_name|adjust_nb_rx_tx_desc|set_mtu|get_mtu|set_mc_addr_list)",
        "rte_eth_dev_(default_mac_addr_set|callback_register|callback_unregister)",
        "rte_eth_dev_(set_ptypes|rss_reta_update|rss_reta_query|is_valid_port)",
        "rte_eth_dev_(rx_intr_enable|rx_intr_disable|rx_intr_ctl_q_get_fd|set_link_(up|down))",
        "rte_eth_(rx_queue_setup|tx_queue_setup|macaddr_get|link_get_nowait|stats_get|stats_reset)",
        "rte_eth_(promiscuous|allmulticast)_(enable|disable|get)",
        "rte_eth_xstats_(get|get_names)",
        "rte_pktmbuf_(pool_create|free|free_bulk)",
        "rte_mempool_(free|avail_count|in_use_count)",
        "rte_thread_(register|unregister)",
        "rte_pdump_(init|uninit)",
        "rte_lcore_(count|index|to_socket_id|to_cpu_id|cpuset)",
        "rte_get_(next_lcore|main_lcore|tsc_hz)",
        "rte_strerror",
        "rte_version",
        "rte_log_set_global_level",
    ];

    fn fail(what: &str) -> ! {
        eprintln!("error: {what}\n{PACKAGES}");
        exit(1)
    }

    pub(crate) fn build() {
        for file in ["shim/shim.h", "shim/shim.c"] {
            println!("cargo::rerun-if-changed={file}");
        }
        let dpdk = pkg_config::Config::new()
            .cargo_metadata(false)
            .range_version(OLDEST..NEWEST)
            .probe("libdpdk")
            .unwrap_or_else(|error| {
                fail(&format!("DPDK {OLDEST} (libdpdk) can't be found by pkg-config: {error}"))
            });
        for path in &dpdk.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        // Of the forty that pkg-config lists. The EAL loads drivers by itself, as plugins.
        for library in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_pdump", "rte_eal"] {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
        // The include file and the machine flag of the headers; pkg-config's crate keeps neither.
        let mut flags = vec!["-include".to_string(), "rte_config.h".to_string()];
        if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
            flags.push("-march=corei7".to_string());
        }
        let includes = dpdk.include_paths.iter().map(|path| format!("-I{}", path.display()));
        let flags: Vec<String> = includes.chain(flags).collect();

        let mut shim = cc::Build::new();
        shim.file("shim/shim.c").opt_level(3).warnings(true).flag("-Wno-deprecated-declarations");
        for flag in &flags {
            shim.flag(flag);
        }
        if let Err(error) = shim.try_compile("hio_dpdk_shim") {
            fail(&format!("the C shim can't be compiled: {error}"));
        }

        // bindgen panics, with a page of text, where there is no libclang.
        let bindings = std::panic::catch_unwind(|| {
            let mut builder = bindgen::Builder::default()
                .header("shim/shim.h")
                // With it, the headers know CPU sets.
                .clang_arg("-D_GNU_SOURCE")
                .clang_args(&flags)
                // Packed structures with aligned fields, which Rust has not; nothing looks inside.
                .opaque_type("rte_arp_ipv4|rte_arp_hdr|rte_l2tpv2_.*|rte_gtp_psc_.*")
                .allowlist_var("HIO_.*|rte_eth_fp_ops|RTE_ETH_(NAME_MAX_LEN|XSTATS_NAME_SIZE)")
                .allowlist_type("rte_mbuf|rte_ether_addr|rte_eth_(conf|dev_info|stats|link)")
                .allowlist_type("rte_eth_(rss_reta_entry64|xstat|xstat_name|fp_ops|event_type)")
                .default_enum_style(bindgen::EnumVariation::Consts)
                .prepend_enum_name(false)
                .layout_tests(true)
                .merge_extern_blocks(true)
                .generate_comments(false);
            for function in FUNCTIONS {
                builder = builder.allowlist_function(function);
            }
            builder.generate()
        });
        let bindings = match bindings {
            Ok(Ok(bindings)) => bindings,
            Ok(Err(error)) => fail(&format!("DPDK's headers can't be read: {error}")),
            Err(_) => fail("libclang can't be found or used"),
        };
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("bindings.rs");
        if let Err(error) = bindings.write_to_file(&out) {
            fail(&format!("{}: {error}", out.display()));
        }
    }
}
