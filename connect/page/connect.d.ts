/** How an attempt to connect has ended. */
export interface ConnectResult {
  /** connected: there is a connection. failed: there is none; code says why. */
  status: 'connected' | 'failed';
  provider_config_key?: string;
  connection_id?: string;
  /**
   * blocked: the browser has blocked the popup. closed: the user has closed it.
   * aborted: by the signal. Else the code that the page has shown, such as
   * access_denied.
   */
  code?: string;
}

export interface ConnectOptions {
  /** Ends the attempt, and closes what was opened. */
  signal?: AbortSignal;
}

export interface PopupOptions extends ConnectOptions {
  width?: number;
  height?: number;
}

export interface FrameOptions extends ConnectOptions {
  /** Read out in place of the frame. Default: Connect */
  title?: string;
  /** A CSS length. Default: 720px */
  height?: string;
  /** Leave the frame, with its last page, where it is. */
  keep?: boolean;
}

/** The global that connect.js defines. */
export interface Connect {
  /** Opens a session's connect_link in a popup. Call it in a click's handler. */
  open(link: string, options?: PopupOptions): Promise<ConnectResult>;
  /** Shows a session's connect_link in an iframe in the container. */
  mount(link: string, container: Element, options?: FrameOptions): Promise<ConnectResult>;
}

declare global {
  const Connect: Connect;
}
