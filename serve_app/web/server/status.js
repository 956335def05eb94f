/** What the server is and how it is doing. */
import { asked } from "./http.js";

export const health = () => asked("v1/health");
export const status = () => asked("v1/status");
export const models = () => asked("v1/models");
export const metrics = () => asked("v1/metrics");
/** By day and tenant. */
export const usage = () => asked("v1/usage?group_by=day,tenant&limit=200");
/** @param {number} seconds */
export const history = (seconds) => asked(`v1/metrics/history?seconds=${seconds}`);
